"""Messages between instances: a turn reads who is open, and inserts inbox rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from django.db.backends.utils import CursorWrapper

from django_workflows.engine import events as ev
from django_workflows.exceptions import InstanceNotFound, InstanceNotRunning
from django_workflows.failures import Failure
from django_workflows.keys import key_of
from django_workflows.models import OpenInstance, WorkflowInstance

from .closing import closing_event
from .database import Database
from .work import InstanceStep

_Child = tuple[int, int]  # the key of the parent, and the command


class Letter(NamedTuple):
    """An inbox row to insert."""

    chain: int
    instance: int | None
    queue: str
    event: ev.InputEvent
    time: datetime


class Mail:
    """Collects what the steps of one turn send to other instances."""

    def __init__(self, database: Database, cursor: CursorWrapper) -> None:
        self._database, self._cursor = database, cursor
        self._posted: list[tuple[InstanceStep, ev.MessageCommand]] = []
        self._to_children: dict[_Child, tuple[InstanceStep, ev.InputEvent]] = {}

    def post(self, step: InstanceStep, event: ev.MessageCommand) -> None:
        """Take a message to any instance, whose delivery or refusal the sender hears of."""
        self._posted.append((step, event))

    def tell_child(self, step: InstanceStep, command: int, policy: ev.ParentClose, reason: str) -> None:
        """Take what a child is told, as its policy says; nothing for one that is left alone."""
        event = closing_event(policy, reason)
        if event is not None:
            self._to_children[step.chain.instance, command] = (step, event)

    def deliver(self) -> Iterator[Letter]:
        """Yield the inbox rows for the addressees that are open, and for the senders."""
        if self._to_children:
            yield from self._letters_to_children()
        if self._posted:
            yield from self._letters()

    def _letters_to_children(self) -> Iterator[Letter]:
        parents = {parent for parent, _ in self._to_children}
        children = WorkflowInstance.objects.using(self._database.alias).open().filter(parent_id__in=parents)
        for child in children.only("id", "chain_id", "queue", "parent_id", "parent_command"):
            found = self._to_children.get((child.parent_id or 0, child.parent_command or 0))
            if found is not None:
                step, event = found
                yield Letter(child.chain, None, child.queue, event, step.step.time)

    def _letters(self) -> Iterator[Letter]:
        opened = self._find_open()
        bound = self._find_bound()
        known = self._find_known(set(opened))
        for step, message in self._posted:
            key, time = key_of(message.instance_id), step.step.time
            row = opened.get(key)
            if row is not None and message.execution_id is not None and bound.get(message.execution_id) != row[1]:
                row = None
            if row is not None:
                chain, instance, queue = row
                yield Letter(chain, instance if message.execution_id else None, queue, _content(message), time)
            if step.step.closing is None:
                outcome = ev.MessageDelivered(message.command) if row is not None else _refused(message, key in known)
                yield Letter(step.chain.chain, step.chain.instance, step.chain.queue, outcome, time)

    def _find_open(self) -> dict[str, tuple[int, int, str]]:
        columns = ("open_key", "chain_id", "instance_id", "queue")
        keys = list({key_of(message.instance_id) for _, message in self._posted})
        rows = self._database.dialect.select(self._cursor, OpenInstance, columns, ("open_key",), keys)
        return {key: (chain, instance, queue) for key, chain, instance, queue in rows}

    def _find_bound(self) -> dict[str, int]:
        executions = [message.execution_id for _, message in self._posted if message.execution_id is not None]
        if not executions:
            return {}
        rows = WorkflowInstance.objects.using(self._database.alias).filter(execution_id__in=executions)
        return dict(rows.values_list("execution_id", "pk"))

    def _find_known(self, opened: set[str]) -> set[str]:
        """Return the keys of ids that exist, or existed, among those that are not open."""
        missing = {key_of(message.instance_id) for _, message in self._posted} - opened
        rows = WorkflowInstance.objects.using(self._database.alias).filter(instance_key__in=missing)
        found = set(rows.values_list("instance_key", flat=True)) if missing else set()
        return found | opened


def _content(message: ev.MessageCommand) -> ev.InputEvent:
    if isinstance(message, ev.SignalSent):
        return ev.SignalReceived(message.name, message.value)
    assert isinstance(message, ev.CancelSent)
    return ev.CancelRequested(message.reason)


def _refused(message: ev.MessageCommand, is_known: bool) -> ev.MessageRefused:
    error: Exception
    if is_known:
        bound = f", execution {message.execution_id!r}," if message.execution_id else ""
        error = InstanceNotRunning(f"expected instance {message.instance_id!r}{bound} to be open, it has closed")
    else:
        error = InstanceNotFound(f"no workflow instance has the instance_id {message.instance_id!r}")
    return ev.MessageRefused(command=message.command, failure=Failure.of(error))

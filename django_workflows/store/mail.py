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
from django_workflows.models import InboxEvent, OpenInstance, WorkflowInstance

from .closing import closing_event
from .database import Database
from .dialects.base import Row
from .work import INBOX_COLUMNS, InstanceStep, Message, TurnResult

_INSTANCE = WorkflowInstance._meta.db_table
_OPEN = OpenInstance._meta.db_table

_Child = tuple[int, int]  # the execution of the parent, and the command that scheduled it
_Execution = tuple[str, str]  # the key of the instance_id, and the execution_id


class Addressee(NamedTuple):
    """An open instance."""

    chain: int
    instance: int
    queue: str


_START = ev.InstanceStarted.__name__


def send_rows(database: Database, cursor: CursorWrapper, rows: list[Row], result: TurnResult) -> None:
    """Insert inbox rows, and note for whom they are."""
    if rows:
        database.dialect.insert(cursor, InboxEvent, INBOX_COLUMNS, rows)
        result.sent += [Message(chain, queue, type == _START) for chain, _, type, _, queue, _ in rows]


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
        """Take a message whose delivery or refusal the sender hears of."""
        self._posted.append((step, event))

    def tell_child(self, step: InstanceStep, command: int, policy: ev.ParentClose, reason: str) -> None:
        """Take what a child is told, as its policy says; nothing for one that is left alone."""
        event = closing_event(policy, reason)
        if event is not None:
            self._to_children[step.chain.instance, command] = (step, event)

    def deliver(self) -> Iterator[Letter]:
        """Yield the inbox rows for the addressees that are open, and for the senders."""
        children = self._find_children()
        for child, (step, event) in self._to_children.items():
            found = children.get(child)
            if found is not None:
                yield Letter(found.chain, None, found.queue, event, step.step.time)
        if self._posted:
            yield from self._letters(children)

    def _letters(self, children: dict[_Child, Addressee]) -> Iterator[Letter]:
        opened = self._find_open()
        executions = self._find_executions()
        found = [(*one, self._find(*one, children, opened, executions)) for one in self._posted]
        known = self._find_known([message for _, message, addressee in found if addressee is None])
        for step, message, addressee in found:
            chain, time = step.chain, step.step.time
            if addressee is not None:
                instance = None if message.execution_id is None else addressee.instance
                yield Letter(addressee.chain, instance, addressee.queue, _content(message), time)
            if step.step.closing is None:
                delivered = ev.MessageDelivered(message.command)
                outcome = delivered if addressee is not None else _refused(message, known, executions)
                yield Letter(chain.chain, chain.instance, chain.queue, outcome, time)

    def _find(
        self, step: InstanceStep, message: ev.MessageCommand, children: dict[_Child, Addressee],
        opened: dict[str, Addressee], executions: dict[_Execution, int],
    ) -> Addressee | None:  # fmt: skip
        """Return who the message is for, None where nobody of that name is open."""
        if message.child:
            return children.get((step.chain.instance, message.child))
        key = key_of(message.instance_id)
        found = opened.get(key)
        if message.execution_id is None or found is None:
            return found
        return found if executions.get((key, message.execution_id)) == found.instance else None

    def _find_children(self) -> dict[_Child, Addressee]:
        """Return the open children of those whose children are written to."""
        wanted = {*self._to_children, *((step.chain.instance, one.child) for step, one in self._posted if one.child)}
        if not wanted:
            return {}
        parents, commands = sorted({parent for parent, _ in wanted}), sorted({command for _, command in wanted})
        self._cursor.execute(
            f"SELECT w.parent_id, w.parent_command, o.chain_id, o.instance_id, o.queue FROM {_INSTANCE} w "
            f"JOIN {_OPEN} o ON o.instance_id = w.id WHERE w.parent_id IN ({', '.join(['%s'] * len(parents))}) "
            f"AND w.parent_command IN ({', '.join(['%s'] * len(commands))})",
            [*parents, *commands],
        )
        return {(parent, command): Addressee(*row) for parent, command, *row in self._cursor.fetchall()}

    def _find_open(self) -> dict[str, Addressee]:
        keys = list({key_of(message.instance_id) for _, message in self._posted if not message.child})
        if not keys:
            return {}
        columns = ("open_key", "chain_id", "instance_id", "queue")
        rows = self._database.dialect.select(self._cursor, OpenInstance, columns, ("open_key",), keys)
        return {key: Addressee(*row) for key, *row in rows}

    def _find_executions(self) -> dict[_Execution, int]:
        """Return those executions that are addressed and exist."""
        bound = [message.execution_id for _, message in self._posted if message.execution_id is not None]
        if not bound:
            return {}
        rows = WorkflowInstance.objects.using(self._database.alias).filter(execution_id__in=bound)
        return {(key, execution): pk for key, execution, pk in rows.values_list("instance_key", "execution_id", "pk")}

    def _find_known(self, refused: list[ev.MessageCommand]) -> set[str]:
        """Return the keys of those ids that existed."""
        keys = {key_of(message.instance_id) for message in refused if not message.child}
        if not keys:
            return set()
        rows = WorkflowInstance.objects.using(self._database.alias).filter(instance_key__in=keys).order_by()
        return set(rows.values_list("instance_key", flat=True).distinct())


def _content(message: ev.MessageCommand) -> ev.InputEvent:
    if isinstance(message, ev.SignalSent):
        return ev.SignalReceived(message.name, message.value)
    assert isinstance(message, ev.CancelSent)
    return ev.CancelRequested(message.reason)


def _refused(message: ev.MessageCommand, known: set[str], executions: dict[_Execution, int]) -> ev.MessageRefused:
    key, execution = key_of(message.instance_id), message.execution_id
    bound = f" and the execution_id {execution!r}" if execution else ""
    error: Exception = InstanceNotFound(f"no workflow instance has the instance_id {message.instance_id!r}{bound}")
    if message.child or ((key, execution) in executions if execution else key in known):
        error = InstanceNotRunning(f"expected instance {message.instance_id!r}{bound} to be open, it has closed")
    return ev.MessageRefused(command=message.command, failure=Failure.of(error))

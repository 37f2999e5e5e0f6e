"""The executions that steps start: children with ids of our own making, continued ones, and next attempts."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django.db.backends.utils import CursorWrapper

from django_workflows import registry
from django_workflows.engine import events as ev
from django_workflows.models import WorkflowInstance

from .bulk import insert_executions, insert_open
from .children import child_row
from .database import Database
from .dialects.base import Row
from .starting import started_event
from .work import InstanceStep


class Started(NamedTuple):
    """The first inbox row of an execution."""

    chain: int
    instance: int
    queue: str
    event: ev.InstanceStarted
    time: datetime


class NewExecutions:
    """Collects the executions of one turn; their ids are needed before other rows can name them."""

    def __init__(self, database: Database, cursor: CursorWrapper) -> None:
        self._database, self._cursor = database, cursor
        self._children: list[tuple[InstanceStep, WorkflowInstance]] = []
        self._closed: list[tuple[InstanceStep, ev.ClosingEvent]] = []  # those whose chains go on
        self.started: list[Started] = []  # after `insert`

    def add_child(self, step: InstanceStep, event: ev.ChildScheduled) -> None:
        chain = step.chain
        self._children.append((step, child_row(chain.instance, chain.root, event, step.step.time)))

    def add_next(self, step: InstanceStep, event: ev.ClosingEvent) -> bool:
        """Have the chain go on where the closing event says so; return whether it does."""
        goes_on = isinstance(event, ev.InstanceContinuedAsNew) or (
            isinstance(event, ev.InstanceFailed) and bool(event.next_execution_id)
        )
        if goes_on:
            self._closed.append((step, event))
        return goes_on

    def insert(self) -> list[Row]:
        """Insert the executions; return the changes of the open rows of chains that go on."""
        following = self._following()
        rows = [row for _, row in self._children] + [row for _, row, _ in following]
        if not rows:
            return []
        insert_executions(self._database, self._cursor, rows)
        insert_open(self._database, self._cursor, [row for _, row in self._children])
        for step, row in self._children:
            self.started.append(Started(row.pk, row.pk, row.queue, started_event(), step.step.time))
        for step, row, event in following:
            self.started.append(Started(step.chain.chain, row.pk, step.chain.queue, event, step.step.time))
        # Unowned, so that the next execution is claimed and loaded like any other.
        return [(step.chain.open_key, row.pk, None, 0, 0, 0) for step, row, _ in following]

    def _following(self) -> list[tuple[InstanceStep, WorkflowInstance, ev.InstanceStarted]]:
        """Return the rows and the first events of the executions that follow on closed ones."""
        if not self._closed:
            return []
        closed = WorkflowInstance.objects.using(self._database.alias).in_bulk(
            [step.chain.instance for step, _ in self._closed]
        )
        return [(step, *_follow(closed[step.chain.instance], step, event)) for step, event in self._closed]


def _follow(
    closed: WorkflowInstance, step: InstanceStep, event: ev.ClosingEvent
) -> tuple[WorkflowInstance, ev.InstanceStarted]:
    """Return the row of the execution that begins anew under the same instance_id, and its first event."""
    row = WorkflowInstance(
        instance_id=closed.instance_id, instance_key=closed.instance_key, chain_id=closed.chain, name=closed.name,
        version=closed.version, queue=closed.queue, priority=closed.priority, parent_id=closed.parent_id,
        parent_command=closed.parent_command, root_id=closed.root_id, subject_type_id=closed.subject_type_id,
        subject_pk=closed.subject_pk, attributes=closed.attributes, options=closed.options, input=closed.input,
        created_at=step.step.time,
    )  # fmt: skip
    if isinstance(event, ev.InstanceContinuedAsNew):
        row.execution_id, row.version = event.execution_id, event.version
        row.input = bytes(event.input).decode()
        return row, started_event(signals=event.signals)
    assert isinstance(event, ev.InstanceFailed)
    definition = registry.workflows.get(closed.name)
    row.execution_id, row.attempt = event.next_execution_id, closed.attempt + 1
    if definition is not None:
        row.version = definition.version
    return row, started_event(signals=event.signals, start_at=event.next_start)

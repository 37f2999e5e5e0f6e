"""The executions that steps start: children with ids of our own making, continued ones, and next attempts."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django_workflows import registry
from django_workflows.engine import events as ev
from django_workflows.models import OpenInstance, WorkflowInstance

from .children import child_row
from .database import Database
from .dialects.base import Row
from .starting import fetch_missing_ids, started_event
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

    def __init__(self, database: Database) -> None:
        self._database = database
        self._children: list[tuple[InstanceStep, WorkflowInstance]] = []
        self._next: list[tuple[InstanceStep, WorkflowInstance, ev.InstanceStarted]] = []
        self.started: list[Started] = []  # after `insert`

    def add_child(self, step: InstanceStep, event: ev.ChildScheduled) -> None:
        self._children.append((step, child_row(step.chain, event, step.step.time)))

    def add_next(self, step: InstanceStep, event: ev.ClosingEvent) -> bool:
        """Have the chain go on where the closing event says so; return whether it does."""
        match event:
            case ev.InstanceContinuedAsNew():
                row = self._next_row(step, event.execution_id, event.version)
                row.input, row.attempt = bytes(event.input).decode(), 1
                started = started_event(signals=event.signals)
            case ev.InstanceFailed() if event.next_execution_id:
                definition = registry.workflows.get(step.chain.info.workflow)
                version = definition.version if definition is not None else step.chain.info.version
                row = self._next_row(step, event.next_execution_id, version)
                row.attempt += 1
                started = started_event(signals=event.signals, start_at=event.next_start)
            case _:
                return False
        self._next.append((step, row, started))
        return True

    def insert(self) -> list[Row]:
        """Insert the executions; return the changes of the open rows of chains that go on."""
        rows = [row for _, row in self._children] + [row for _, row, _ in self._next]
        if not rows:
            return []
        alias = self._database.alias
        WorkflowInstance.objects.using(alias).bulk_create(rows, batch_size=500)
        fetch_missing_ids(self._database, rows)
        opened = [
            OpenInstance(open_key=row.instance_key, chain_id=row.pk, instance_id=row.pk, queue=row.queue)
            for _, row in self._children
        ]
        OpenInstance.objects.using(alias).bulk_create(opened, batch_size=500)
        for step, row in self._children:
            self.started.append(Started(row.pk, row.pk, row.queue, started_event(), step.step.time))
        for step, row, event in self._next:
            self.started.append(Started(step.chain.chain, row.pk, step.chain.queue, event, step.step.time))
        # Unowned, so that the next execution is claimed and loaded like any other.
        return [(step.chain.open_key, row.pk, None, 0, 0, 0) for step, row, _ in self._next]

    def _next_row(self, step: InstanceStep, execution_id: str, version: str) -> WorkflowInstance:
        """Return a copy of an execution's row that begins anew under the same instance_id."""
        chain = step.chain
        row = WorkflowInstance.objects.using(self._database.alias).get(pk=chain.instance)
        return WorkflowInstance(
            instance_id=row.instance_id, instance_key=row.instance_key, execution_id=execution_id,
            chain_id=chain.chain, name=row.name, version=version, queue=row.queue, priority=row.priority,
            parent_id=row.parent_id, parent_command=row.parent_command, root_id=row.root_id,
            subject_type_id=row.subject_type_id, subject_pk=row.subject_pk, attributes=row.attributes,
            options=row.options, attempt=row.attempt, input=row.input, created_at=step.step.time,
        )  # fmt: skip

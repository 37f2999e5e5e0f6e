"""Turning steps into rows: which event means which change of which table."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from django.db.backends.utils import CursorWrapper

from django_workflows.engine import events as ev
from django_workflows.exceptions import WorkflowCancelled
from django_workflows.failures import Failure
from django_workflows.models import InstanceStatus, OpenInstance, WorkflowInstance

from .database import Database
from .dialects.base import Row
from .keys import key_of
from .starting import fetch_missing_ids
from .work import InstanceStep, OpenChain, TaskKey

_encode = msgspec.json.Encoder().encode

_CLOSED_AS: dict[type[ev.Event], InstanceStatus] = {
    ev.InstanceCompleted: InstanceStatus.COMPLETED,
    ev.InstanceFailed: InstanceStatus.FAILED,
    ev.InstanceCancelled: InstanceStatus.CANCELLED,
    ev.InstanceContinuedAsNew: InstanceStatus.CONTINUED_AS_NEW,
}
RETRY_COMMAND = 0  # the timer command of a blocked instance's next try


class StepRows:
    """Collects the rows of all steps of a turn, one list per statement."""

    def __init__(self, database: Database, cursor: CursorWrapper, worker_id: int) -> None:
        self.database = database
        self.cursor = cursor
        self.worker_id = worker_id
        self.to_time = database.dialect.to_time
        self.history: list[Row] = []
        self.open_updates: list[Row] = []
        self.open_deletes: list[str] = []
        self.instance_updates: list[Row] = []
        self.status_updates: list[Row] = []
        self.tasks: list[Row] = []
        self.task_deletes: list[TaskKey] = []
        self.own_task_deletes: list[TaskKey] = []
        self.timers: list[Row] = []
        self.timer_deletes: list[TaskKey] = []
        self.inbox: list[Row] = []
        self.inbox_deletes: list[int] = []
        self._children: list[tuple[InstanceStep, ev.ChildScheduled]] = []
        self._cancelled_children: list[TaskKey] = []
        self._continued: list[tuple[InstanceStep, ev.InstanceContinuedAsNew]] = []

    def add(self, step: InstanceStep) -> None:
        chain = step.chain
        self.inbox_deletes += step.consumed
        self.own_task_deletes += [TaskKey(chain.instance, command) for command in step.finished]
        if chain.blocks:
            self.timer_deletes.append(TaskKey(chain.instance, RETRY_COMMAND))
        if step.blocked is not None:
            self._add_blocked(step)
            return
        time = self.to_time(step.step.time)
        sequence = chain.history_length
        for event in step.step.events:
            sequence += 1
            self.history.append((chain.instance, sequence, event.type, time, ev.encode_event(event)))
        self._add_decisions(step)
        if chain.blocks and step.step.closing is None:
            self.status_updates.append((chain.instance, InstanceStatus.RUNNING.value, None))
        if step.step.closing is None:
            owner = None if step.release else self.worker_id
            self.open_updates.append((chain.open_key, chain.instance, owner, sequence, 0, 0))
        else:
            self._add_closing(step, step.step.closing, sequence)

    def _add_blocked(self, step: InstanceStep) -> None:
        assert step.blocked is not None and step.retry_at is not None
        chain = step.chain
        retry_at = self.to_time(step.retry_at)
        failure = step.blocked.encode().decode()
        self.status_updates.append((chain.instance, InstanceStatus.BLOCKED.value, failure))
        self.timers.append((chain.instance, RETRY_COMMAND, chain.chain, retry_at, retry_at))
        self.open_updates.append((chain.open_key, chain.instance, None, chain.history_length, 0, chain.blocks + 1))

    def _add_decisions(self, step: InstanceStep) -> None:
        """Write what the step decided, leaving out what it also took back."""
        chain, closing = step.chain, step.step.closing is not None
        taken_back = {
            event.command
            for event in step.step.events
            if isinstance(event, ev.ActivityCancelled | ev.TimerCancelled | ev.ChildCancelRequested)
        }
        created: set[int] = set()
        for event in step.step.events:
            match event:
                case ev.ActivityScheduled() | ev.TimerStarted() | ev.ChildScheduled():
                    created.add(event.command)
                    if event.command not in taken_back and not closing:
                        self._add_created(step, event)
                case ev.TimerFired():
                    if event.command not in created:
                        self.timer_deletes.append(TaskKey(chain.instance, event.command))
                case ev.ActivityCancelled() | ev.TimerCancelled() | ev.ChildCancelRequested():
                    if event.command not in created:
                        self._add_cancelled(chain, event)
        for event in step.abandoned:
            if isinstance(event, ev.CommandEvent) and event.command not in created:
                self._add_cancelled(chain, event)

    def _add_created(self, step: InstanceStep, event: ev.CommandEvent) -> None:
        chain = step.chain
        match event:
            case ev.ActivityScheduled():
                self.tasks.append(self._task_row(step, event))
            case ev.TimerStarted():
                fire_at = self.to_time(event.fire_at)
                self.timers.append((chain.instance, event.command, chain.chain, fire_at, fire_at))
            case ev.ChildScheduled():
                self._children.append((step, event))

    def _add_cancelled(self, chain: OpenChain, event: ev.CommandEvent) -> None:
        key = TaskKey(chain.instance, event.command)
        match event:
            case ev.ActivityCancelled() | ev.ActivityScheduled():
                self.task_deletes.append(key)
            case ev.TimerCancelled() | ev.TimerStarted():
                self.timer_deletes.append(key)
            case ev.ChildCancelRequested() | ev.ChildScheduled():
                self._cancelled_children.append(key)

    def _task_row(self, step: InstanceStep, event: ev.ActivityScheduled) -> Row:
        chain, now = step.chain, step.step.time
        limit = event.options.get("schedule_to_close")
        expires_at = self.to_time(now + timedelta(seconds=limit)) if limit is not None else None
        time = self.to_time(now)
        # A lease is a claim: the first attempt, and a crash until it comes back.
        eager = event.command in step.eager
        attempt, owner, available_at = (1, self.worker_id, None) if eager else (0, None, time)
        return (
            chain.instance, event.command, chain.chain, event.name, event.queue, chain.queue, 0,
            attempt, attempt, owner, available_at, expires_at, time, None,
            _encode(event.options).decode(), bytes(event.input).decode(),
        )  # fmt: skip

    def _add_closing(self, step: InstanceStep, event: ev.ClosingEvent, length: int) -> None:
        chain = step.chain
        result = bytes(event.result).decode() if isinstance(event, ev.InstanceCompleted) else None
        failure = event.failure.encode().decode() if isinstance(event, ev.InstanceFailed) else None
        self.instance_updates.append(
            (chain.instance, _CLOSED_AS[type(event)].value, result, failure, length, self.to_time(step.step.time))
        )
        if isinstance(event, ev.InstanceContinuedAsNew):
            self._continued.append((step, event))
            return
        self.open_deletes.append(chain.open_key)
        if chain.parent is not None:
            self._tell_parent(step, event)

    def _tell_parent(self, step: InstanceStep, event: ev.ClosingEvent) -> None:
        parent = step.chain.parent
        assert parent is not None
        outcome: ev.ResultEvent
        match event:
            case ev.InstanceCompleted():
                outcome = ev.ChildCompleted(parent.command, event.result)
            case ev.InstanceFailed():
                outcome = ev.ChildFailed(command=parent.command, failure=event.failure)
            case _:
                info = step.chain.info
                error = WorkflowCancelled(f"child {info.workflow} {info.instance_id!r} was cancelled")
                outcome = ev.ChildFailed(command=parent.command, failure=Failure.of(error))
        self._send(parent.chain, parent.instance, parent.queue, outcome, self.to_time(step.step.time))

    def _send(self, chain: int, instance: int | None, queue: str, event: ev.InputEvent, time: Any) -> None:
        self.inbox.append((chain, instance, event.type, ev.encode_event(event), queue, time))

    # New executions: children, and continued ones

    def create_instances(self) -> None:
        """Insert the executions that the steps start; their ids are needed before other rows can name them."""
        rows = [self._child_row(step, event) for step, event in self._children]
        rows += [self._continued_row(step, event) for step, event in self._continued]
        if not rows:
            return
        WorkflowInstance.objects.using(self.database.alias).bulk_create(rows, batch_size=500)
        fetch_missing_ids(self.database, rows)
        children, continued = rows[: len(self._children)], rows[len(self._children) :]
        opened = [
            OpenInstance(open_key=row.instance_key, chain_id=row.pk, instance_id=row.pk, queue=row.queue)
            for row in children
        ]
        OpenInstance.objects.using(self.database.alias).bulk_create(opened, batch_size=500)
        for row, (step, _) in zip(children, self._children, strict=True):
            self._send(row.pk, row.pk, row.queue, ev.InstanceStarted(), self.to_time(step.step.time))
        for row, (step, event) in zip(continued, self._continued, strict=True):
            chain = step.chain
            # Unowned, so that the next execution is claimed and loaded like any other.
            self.open_updates.append((chain.open_key, row.pk, None, 0, 0, 0))
            started = ev.InstanceStarted(signals=event.signals)
            self._send(chain.chain, row.pk, chain.queue, started, self.to_time(step.step.time))

    def _child_row(self, step: InstanceStep, event: ev.ChildScheduled) -> WorkflowInstance:
        chain = step.chain
        return WorkflowInstance(
            instance_id=event.instance_id, instance_key=key_of(event.instance_id), execution_id=event.execution_id,
            name=event.name, version=event.version, queue=event.queue, input=bytes(event.input).decode(),
            parent_id=chain.instance, parent_command=event.command, root_id=chain.root or chain.instance,
            created_at=step.step.time,
        )  # fmt: skip

    def _continued_row(self, step: InstanceStep, event: ev.InstanceContinuedAsNew) -> WorkflowInstance:
        chain, info = step.chain, step.chain.info
        previous = WorkflowInstance.objects.using(self.database.alias).get(pk=chain.instance)
        return WorkflowInstance(
            instance_id=info.instance_id, instance_key=chain.open_key, execution_id=event.execution_id,
            chain_id=chain.chain, name=info.workflow, version=event.version, queue=chain.queue,
            input=bytes(event.input).decode(), parent_id=previous.parent_id, parent_command=previous.parent_command,
            root_id=previous.root_id, subject_type_id=previous.subject_type_id, subject_pk=previous.subject_pk,
            attributes=previous.attributes, created_at=step.step.time,
        )  # fmt: skip

    def address_children(self) -> None:
        """Turn cancelled child commands into inbox rows of the open children behind them."""
        if not self._cancelled_children:
            return
        parents = {key.instance for key in self._cancelled_children}
        children = WorkflowInstance.objects.using(self.database.alias).open().filter(parent_id__in=parents)
        wanted = set(self._cancelled_children)
        now = self.to_time(self.database.dialect.now(self.cursor))
        for child in children.only("id", "chain_id", "queue", "parent_id", "parent_command"):
            if (child.parent_id, child.parent_command) in wanted:
                self._send(child.chain, None, child.queue, ev.CancelRequested("cancelled by its parent"), now)

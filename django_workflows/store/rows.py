"""Turning steps into rows: which event means which change of which table."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from django.db.backends.utils import CursorWrapper

from django_workflows.engine import events as ev
from django_workflows.exceptions import WorkflowCancelled
from django_workflows.failures import Failure
from django_workflows.models import InstanceStatus

from .answers import Answers
from .closing import termination, was_terminated
from .database import Database
from .deadlines import waits_until
from .dialects.base import Row
from .executions import NewExecutions
from .mail import Mail
from .work import InstanceStep, OpenChain, TaskKey

_encode = msgspec.json.Encoder().encode

_CLOSED_AS: dict[type[ev.Event], InstanceStatus] = {
    ev.InstanceCompleted: InstanceStatus.COMPLETED,
    ev.InstanceFailed: InstanceStatus.FAILED,
    ev.InstanceCancelled: InstanceStatus.CANCELLED,
    ev.InstanceContinuedAsNew: InstanceStatus.CONTINUED_AS_NEW,
    ev.InstanceTerminated: InstanceStatus.TERMINATED,
}
_MOST_BLOCKS = 32767  # that the column holds: three weeks of one a minute
RETRY_COMMAND = 0  # the timer command of a blocked instance's next try


class StepRows:
    """Collects the rows of all steps of a turn, one list per statement."""

    def __init__(self, database: Database, cursor: CursorWrapper, worker_id: int) -> None:
        self.worker_id = worker_id
        self.to_time = cache(database.dialect.to_time)  # most times of a turn are one time
        self.history: list[Row] = []
        self.open_updates: list[Row] = []
        self.open_deletes: list[str] = []
        self.instance_updates: list[Row] = []
        self.status_updates: list[Row] = []
        self.attributes: dict[int, list[msgspec.Raw]] = {}
        self.tasks: list[Row] = []
        self.task_deletes: list[TaskKey] = []
        self.own_task_deletes: list[TaskKey] = []
        self.timers: list[Row] = []
        self.timer_deletes: list[TaskKey] = []
        self.inbox: list[Row] = []
        self.inbox_deletes: list[int] = []
        self.executions = NewExecutions(database, cursor)
        self.mail = Mail(database, cursor)
        self.answers = Answers(self.to_time)

    def add(self, step: InstanceStep) -> None:
        chain = step.chain
        self.inbox_deletes += step.consumed
        self.own_task_deletes += [TaskKey(chain.instance, command) for command in step.finished]
        self.task_deletes += [TaskKey(chain.instance, command) for command in step.deferred]
        if chain.blocks or step.blocked is not None:
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
        self.answers.add(step.step)
        if chain.blocks and step.step.closing is None:
            self.status_updates.append((chain.instance, InstanceStatus.RUNNING.value, None))
        if step.step.closing is None:
            owner = None if step.release else self.worker_id
            self.open_updates.append((chain.open_key, chain.instance, owner, sequence, 0, 0))
        else:
            self._add_closing(step, step.step.closing, sequence)

    def finish(self) -> None:
        """Insert the executions that the steps start, and find out where messages go."""
        self.open_updates += self.executions.insert()
        for chain, instance, queue, event, time in self.executions.started:
            self._send(chain, instance, queue, event, self.to_time(time))

    def deliver(self) -> None:
        """Address the messages between instances; those that closed in this turn get none."""
        for chain, instance, queue, event, time in self.mail.deliver():
            self._send(chain, instance, queue, event, self.to_time(time))

    def _add_blocked(self, step: InstanceStep) -> None:
        assert step.blocked is not None and step.retry_at is not None
        chain = step.chain
        retry_at = self.to_time(step.retry_at)
        failure = step.blocked.encode().decode()
        self.status_updates.append((chain.instance, InstanceStatus.BLOCKED.value, failure))
        self.timers.append((chain.instance, RETRY_COMMAND, chain.chain, retry_at, retry_at))
        blocks = min(chain.blocks + 1, _MOST_BLOCKS)
        self.open_updates.append((chain.open_key, chain.instance, None, chain.history_length, 0, blocks))

    # Decisions

    def _add_decisions(self, step: InstanceStep) -> None:
        """Write what the step decided, leaving out the activities and timers that it also took back."""
        chain, closing = step.chain, step.step.closing is not None
        taken_back = {
            event.command for event in step.step.events if isinstance(event, ev.ActivityCancelled | ev.TimerCancelled)
        }
        created: set[int] = set()
        for event in step.step.events:
            match event:
                case ev.ActivityScheduled() | ev.TimerStarted():
                    created.add(event.command)
                    if event.command not in taken_back and not closing:
                        self._add_created(step, event)
                case ev.ChildScheduled():
                    created.add(event.command)
                    self._add_child(step, event, closing=closing)
                case ev.TimerFired():
                    if event.command not in created:
                        self.timer_deletes.append(TaskKey(chain.instance, event.command))
                case ev.ActivityCancelled() | ev.TimerCancelled():
                    if event.command not in created:
                        self._add_cancelled(step, event)
                case ev.ChildCancelRequested():
                    self._add_cancelled(step, event)
                case ev.MessageCommand():
                    self.mail.post(step, event)
                case ev.AttributesSet():
                    self.attributes.setdefault(chain.instance, []).append(event.attributes)
        for left in step.abandoned:
            if left.command not in created:
                self._add_cancelled(step, left)

    def _add_created(self, step: InstanceStep, event: ev.ActivityScheduled | ev.TimerStarted) -> None:
        chain = step.chain
        if isinstance(event, ev.ActivityScheduled):
            self.tasks.append(self._task_row(step, event))
        else:
            fire_at = self.to_time(event.fire_at)
            self.timers.append((chain.instance, event.command, chain.chain, fire_at, fire_at))

    def _add_child(self, step: InstanceStep, event: ev.ChildScheduled, *, closing: bool) -> None:
        """Start a child with the step, or order its start; a parent that closes at once leaves only abandoned ones."""
        if closing and event.options.parent_close != "abandon":
            return
        if event.chosen_id:
            chain = step.chain
            self._send(chain.chain, chain.instance, chain.queue, event, self.to_time(step.step.time))
        else:
            self.executions.add_child(step, event)

    def _add_cancelled(self, step: InstanceStep, event: ev.CommandEvent) -> None:
        key = TaskKey(step.chain.instance, event.command)
        match event:
            case ev.ActivityCancelled() | ev.ActivityScheduled():
                self.task_deletes.append(key)
            case ev.TimerCancelled() | ev.TimerStarted():
                self.timer_deletes.append(key)
            case ev.ChildCancelRequested():
                self.mail.tell_child(step, event.command, event.policy, "its parent cancelled it")
            case ev.ChildScheduled():
                self.mail.tell_child(step, event.command, event.options.parent_close, "its parent closed")

    def _task_row(self, step: InstanceStep, event: ev.ActivityScheduled) -> Row:
        chain, now = step.chain, step.step.time
        time = self.to_time(now)
        # A lease is a claim: the first attempt, and a crash until it comes back.
        eager = event.command in step.eager
        attempt, owner, available_at = (1, self.worker_id, None) if eager else (0, None, time)
        expires_at = None if eager else self.to_time(waits_until(now, now, event.options))
        return (
            chain.instance, event.command, chain.chain, event.name, event.queue, chain.queue, 0,
            attempt, attempt, owner, available_at, expires_at, time, None,
            _encode(event.options).decode(), bytes(event.input).decode(),
        )  # fmt: skip

    # Closing

    def _add_closing(self, step: InstanceStep, event: ev.ClosingEvent, length: int) -> None:
        chain = step.chain
        result = bytes(event.result).decode() if isinstance(event, ev.InstanceCompleted) else None
        failure = _failure_of(event)
        self.instance_updates.append(
            (
                chain.instance, _CLOSED_AS[type(event)].value, result, failure.encode().decode() if failure else None,
                length, self.to_time(step.step.time),
            )
        )  # fmt: skip
        if self.executions.add_next(step, event):
            return
        self.open_deletes.append(chain.open_key)
        if chain.parent is not None:
            parent = chain.parent
            outcome = _outcome(chain, parent.command, event)
            self._send(parent.chain, parent.instance, parent.queue, outcome, self.to_time(step.step.time))

    def _send(self, chain: int, instance: int | None, queue: str, event: ev.Event, time: Any) -> None:
        self.inbox.append((chain, instance, event.type, ev.encode_event(event), queue, time))


def _failure_of(event: ev.ClosingEvent) -> Failure | None:
    match event:
        case ev.InstanceFailed():
            return event.failure
        case ev.InstanceTerminated():
            return termination(event.reason)
    return None


def _outcome(chain: OpenChain, command: int, event: ev.ClosingEvent) -> ev.ResultEvent:
    """Return what the parent is told."""
    info = chain.info
    match event:
        case ev.InstanceCompleted():
            return ev.ChildCompleted(command, event.result, event.cancel_requested)
        case ev.InstanceFailed():
            return ev.ChildFailed(command=command, failure=event.failure, cancel_requested=event.cancel_requested)
        case ev.InstanceTerminated():
            failure = was_terminated(info.workflow, info.instance_id, event.reason)
        case _:
            failure = Failure.of(WorkflowCancelled(f"child {info.workflow} {info.instance_id!r} was cancelled"))
    return ev.ChildFailed(command=command, failure=failure)

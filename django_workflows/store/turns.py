"""Committing a turn: one transaction for everything that happened, a fixed number of statements whatever the batch.

Lock order: worker row, open rows by key, instances by id, then rows that belong to what is locked already. No statement
here waits for a lock that an application's transaction can hold.
"""

from __future__ import annotations

import msgspec
from django.db.backends.utils import CursorWrapper

from django_workflows.engine.events import AttributesSet
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    OpenInstance,
    Timer,
    WorkflowInstance,
    WorkflowUpdate,
)

from . import claims
from .answers import COLUMNS as _ANSWER
from .attempts import delete_unlocked, find_locked, finish_attempts
from .database import Database
from .dialects.base import Row
from .mail import send_rows
from .rows import StepRows
from .work import InstanceStep, OpenChain, TaskKey, TurnBatch, TurnResult
from .workers import fence

_HISTORY = ("instance_id", "sequence", "type", "time", "data")
_OPEN = ("instance_id", "owner_id", "history_length", "crashes", "blocks")
_INSTANCE = ("status", "result", "failure", "history_length", "closed_at")
_BLOCKED = ("status", "failure")
_TASK = (
    "instance_id", "command", "chain_id", "name", "queue", "workflow_queue", "priority", "attempt", "crashes",
    "owner_id", "available_at", "expires_at", "scheduled_at", "last_failure", "options", "input",
)  # fmt: skip
_TIMER = ("instance_id", "command", "chain_id", "fire_at", "wake_at")
_OWNER = _TASK.index("owner_id")


class InboxChanged(Exception):
    """Inbox rows that a step has consumed are gone: somebody else took them, and the turn is rolled back."""


def commit_turn(database: Database, worker_id: int, batch: TurnBatch) -> TurnResult:
    """Commit a batch and return what became of its parts; raises WorkerFenced, or the database's own errors."""
    result = TurnResult()
    with database.dialect.turn() as cursor:
        fence(database, cursor, worker_id)
        steps = _lock_steps(database, cursor, worker_id, batch, result)
        _write_steps(database, cursor, worker_id, steps, result)
        finish_attempts(database, cursor, worker_id, batch, result)
        result.claimed_instances = claims.claim_instances(database, cursor, worker_id, batch.claim_instances)
        result.claimed_tasks = claims.claim_tasks(database, cursor, worker_id, batch.claim_tasks)
    result.committed = steps
    return result


def find_landed(database: Database, worker_id: int, batch: TurnBatch) -> TurnResult:
    """After a lost reply to a commit: return the steps that it stored and what it claimed.

    Locks the worker's row first, which waits for the old connection's transaction to end one way or the other. What a
    step leaves behind is its last event, or for one without events the absence of the inbox rows it consumed.
    """
    with database.atomic(), database.cursor() as cursor:
        fence(database, cursor, worker_id)
        key = ("instance_id", "sequence")
        ends = {_last_event(step) for step in batch.steps if step.step.events}
        stored = set(database.dialect.select(cursor, HistoryEvent, key, key, list(ends))) if ends else set()
        read = [row for step in batch.steps if not step.step.events for row in step.consumed]
        unread = (
            {row[0] for row in database.dialect.select(cursor, InboxEvent, ("id",), ("id",), read)} if read else set()
        )
        instances, tasks = claims.find_claimed(database, cursor, worker_id, batch.claim_instances, batch.claim_tasks)
    steps = [step for step in batch.steps if _is_stored(step, stored, unread)]
    return TurnResult(committed=steps, claimed_instances=instances, claimed_tasks=tasks)


def _last_event(step: InstanceStep) -> tuple[int, int]:
    return (step.chain.instance, step.chain.history_length + len(step.step.events))


def _is_stored(step: InstanceStep, stored: set[tuple[int, int]], unread: set[int]) -> bool:
    if step.step.events:
        return _last_event(step) in stored
    return bool(step.consumed) and unread.isdisjoint(step.consumed)


# Locking


def _lock_steps(
    database: Database, cursor: CursorWrapper, worker_id: int, batch: TurnBatch, result: TurnResult
) -> list[InstanceStep]:
    """Lock the open rows of the steps and sort out those that are busy or lost; frees evicted instances meanwhile."""
    chains = [*(step.chain for step in batch.steps), *batch.releases]
    if not chains:
        return []
    rows = database.dialect.select(
        cursor, OpenInstance, ("open_key", "instance_id", "history_length"), ("open_key",),
        list({chain.open_key for chain in chains}), where=f"AND t.owner_id = {worker_id:d}", lock="skip",
    )  # fmt: skip
    # Not by the key alone: a replaced execution and its successor have the same.
    held = {tuple(row) for row in rows}
    _release(database, cursor, [chain for chain in batch.releases if _as_seen(chain) in held])
    missing = [step for step in batch.steps if _as_seen(step.chain) not in held]
    if missing:
        _sort_out(database, cursor, worker_id, missing, result)
    steps = [step for step in batch.steps if _as_seen(step.chain) in held]
    return _lock_deferred(database, cursor, _lock_closing(database, cursor, steps, result), result)


def _as_seen(chain: OpenChain) -> tuple[str, int, int]:
    return (chain.open_key, chain.instance, chain.history_length)


def _sort_out(
    database: Database, cursor: CursorWrapper, worker_id: int, missing: list[InstanceStep], result: TurnResult
) -> None:
    """Tell rows that somebody else holds locked from rows that are not this worker's any more."""
    rows = database.dialect.select(
        cursor, OpenInstance, ("open_key", "owner_id", "instance_id", "history_length"), ("open_key",),
        list({step.chain.open_key for step in missing}),
    )  # fmt: skip
    mine = {(key, instance, length) for key, owner, instance, length in rows if owner == worker_id}
    for step in missing:
        (result.busy if _as_seen(step.chain) in mine else result.lost).append(step)


def _lock_closing(
    database: Database, cursor: CursorWrapper, steps: list[InstanceStep], result: TurnResult
) -> list[InstanceStep]:
    """Lock the wide rows that will change; an application may hold one through a foreign key of its own."""
    writing = {step.chain.instance for step in steps if _writes_instance(step)}
    if not writing:
        return steps
    rows = database.dialect.select(cursor, WorkflowInstance, ("id",), ("id",), list(writing), lock="skip")
    skipped = writing - {row[0] for row in rows}
    result.busy += [step for step in steps if step.chain.instance in skipped]
    return [step for step in steps if step.chain.instance not in skipped]


def _writes_instance(step: InstanceStep) -> bool:
    if step.step.closing or step.blocked or step.chain.blocks:
        return True
    return any(isinstance(event, AttributesSet) for event in step.step.events)


def _lock_deferred(
    database: Database, cursor: CursorWrapper, steps: list[InstanceStep], result: TurnResult
) -> list[InstanceStep]:
    """Lock the tasks whose results came by token; one that a worker is just writing would outlive its result."""
    owners = {TaskKey(step.chain.instance, command): step for step in steps for command in step.deferred}
    if not owners:
        return steps
    busy = {id(owners[key]) for key in find_locked(database, cursor, list(owners))}
    result.busy += [step for step in steps if id(step) in busy]
    return [step for step in steps if id(step) not in busy]


def _release(database: Database, cursor: CursorWrapper, chains: list[OpenChain]) -> None:
    if chains:
        # The claim has come back, even without a step.
        rows = [(chain.open_key, None, 0) for chain in chains]
        database.dialect.update(cursor, OpenInstance, ("open_key",), ("owner_id", "crashes"), rows)


# Writing


def _write_steps(
    database: Database, cursor: CursorWrapper, worker_id: int, steps: list[InstanceStep], result: TurnResult
) -> None:
    if not steps:
        return
    dialect = database.dialect
    rows = StepRows(database, cursor, worker_id)
    for step in steps:
        rows.add(step)
    if rows.attributes:
        _merge_attributes(database, cursor, rows.attributes)  # first: an execution that follows inherits them
    rows.finish()
    _write_rows(database, cursor, rows)
    result.unleased += sum(row[_OWNER] is None for row in rows.tasks)
    delete_unlocked(database, cursor, rows.task_deletes)
    rows.deliver()  # now that it is known who is open
    send_rows(database, cursor, rows.inbox, result)
    if rows.inbox_deletes:
        deleted = dialect.delete_counted(cursor, InboxEvent, ("id",), rows.inbox_deletes)
        if deleted != len(rows.inbox_deletes):
            raise InboxChanged(f"expected {len(rows.inbox_deletes)} consumed inbox rows, found {deleted}")
    unblocked = {s.chain.chain: s.chain.queue for s in steps if s.chain.blocks and s.blocked is None}
    if unblocked:
        _unpark(database, cursor, unblocked)


def _write_rows(database: Database, cursor: CursorWrapper, rows: StepRows) -> None:
    """Write what the steps' own rows become."""
    dialect = database.dialect
    _insert(database, cursor, HistoryEvent, _HISTORY, rows.history)
    if rows.open_updates:
        dialect.update(cursor, OpenInstance, ("open_key",), _OPEN, rows.open_updates)
    if rows.open_deletes:
        dialect.delete(cursor, OpenInstance, ("open_key",), rows.open_deletes)
    if rows.instance_updates:
        dialect.update(cursor, WorkflowInstance, ("id",), _INSTANCE, rows.instance_updates)
    if answers := rows.answers.rows():
        dialect.update(cursor, WorkflowUpdate, ("update_id",), _ANSWER, answers)
    if rows.status_updates:
        dialect.update(cursor, WorkflowInstance, ("id",), _BLOCKED, rows.status_updates)
    _insert(database, cursor, ActivityTask, _TASK, rows.tasks)
    if rows.own_task_deletes:
        dialect.delete(cursor, ActivityTask, ("instance_id", "command"), rows.own_task_deletes)
    # Deleted first: a blocked instance replaces the row of its next try.
    if rows.timer_deletes:
        dialect.delete(cursor, Timer, ("instance_id", "command"), rows.timer_deletes)
    _insert(database, cursor, Timer, _TIMER, rows.timers)


def _merge_attributes(database: Database, cursor: CursorWrapper, changes: dict[int, list[msgspec.Raw]]) -> None:
    """Set attributes of instances whose rows are locked."""
    rows = WorkflowInstance.objects.using(database.alias).filter(pk__in=changes)
    merged: list[Row] = []
    for pk, attributes in rows.values_list("pk", "attributes"):
        for change in changes[pk]:
            attributes.update(msgspec.json.decode(change))
        merged.append((pk, database.dialect.to_json(msgspec.json.encode(attributes).decode())))
    database.dialect.update(cursor, WorkflowInstance, ("id",), ("attributes",), merged)


def _unpark(database: Database, cursor: CursorWrapper, queues: dict[int, str]) -> None:
    """Bring what a chain has not read yet back into the range of polls: it no longer has a timer that wakes it."""
    inbox = InboxEvent.objects.using(database.alias).filter(chain_id__in=queues, queue__isnull=True)
    rows = [(pk, queues[chain]) for pk, chain in inbox.values_list("id", "chain_id")]
    if rows:
        database.dialect.update(cursor, InboxEvent, ("id",), ("queue",), rows)


def _insert(database: Database, cursor: CursorWrapper, model: type, columns: tuple[str, ...], rows: list[Row]) -> None:
    if rows:
        database.dialect.insert(cursor, model, columns, rows)

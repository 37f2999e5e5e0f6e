"""The part of a turn that is about attempts: their outcomes, retries, deferrals, heartbeats, and tasks to delete."""

from __future__ import annotations

from django.db.backends.utils import CursorWrapper

from django_workflows.models import ActivityTask

from . import claims
from .database import Database
from .deadlines import waits_until
from .dialects.base import Lock, Row
from .mail import send_rows
from .work import ClaimedTask, Deferral, Heartbeat, Outcome, Retry, TaskKey, TurnBatch, TurnResult

KEY = ("instance_id", "command")


def finish_attempts(
    database: Database, cursor: CursorWrapper, worker_id: int, batch: TurnBatch, result: TurnResult
) -> None:
    """Write what became of attempts that are still leased to this worker; of others nothing is written.

    Waits for the rows' locks: they are leased to this worker, so only a passing sweep can hold them, and a row that was
    skipped would lose its outcome. Heartbeats come first, since a retry takes the row out of the lease.
    """
    _store_heartbeats(database, cursor, worker_id, batch.heartbeats)
    entries: list[Outcome | Retry | Deferral] = [*batch.outcomes, *batch.retries, *batch.deferrals]
    leased = _lock_leased(database, cursor, worker_id, [entry.task for entry in entries], "wait")

    def is_leased(entry: Outcome | Retry | Deferral) -> bool:
        return (entry.task.key, entry.task.attempt) in leased

    retries = [retry for retry in batch.retries if is_leased(retry)]
    _send_outcomes(database, cursor, [outcome for outcome in batch.outcomes if is_leased(outcome)], result)
    _put_back(database, cursor, retries)
    _defer(database, cursor, [deferral for deferral in batch.deferrals if is_leased(deferral)])
    result.unleased += sum(not retry.counts for retry in retries)


def _lock_leased(
    database: Database, cursor: CursorWrapper, worker_id: int, tasks: list[ClaimedTask], lock: Lock
) -> set[tuple[TaskKey, int]]:
    """Lock those tasks that are leased to this worker; return their keys and attempts."""
    if not tasks:
        return set()
    rows = database.dialect.select(
        cursor, ActivityTask, (*KEY, "attempt"), KEY, list({task.key for task in tasks}),
        where=f"AND t.owner_id = {worker_id:d}", lock=lock,
    )  # fmt: skip
    return {(TaskKey(instance, command), attempt) for instance, command, attempt in rows}


def _send_outcomes(database: Database, cursor: CursorWrapper, outcomes: list[Outcome], result: TurnResult) -> None:
    """Send the outcomes of tasks whose instances live elsewhere."""
    if outcomes:
        now = database.dialect.to_time(database.dialect.now(cursor))
        send_rows(database, cursor, [claims.result_row(entry.task, entry.event, now) for entry in outcomes], result)
        database.dialect.delete(cursor, ActivityTask, KEY, [outcome.task.key for outcome in outcomes])


def _store_heartbeats(database: Database, cursor: CursorWrapper, worker_id: int, heartbeats: list[Heartbeat]) -> None:
    """Write the last heartbeat of each attempt.

    Skips locked rows: an atomic activity that is about to commit holds its own, and perhaps waits for others.
    """
    leased = _lock_leased(database, cursor, worker_id, [entry.task for entry in heartbeats], "skip")
    last = {entry.task.key: entry for entry in heartbeats if (entry.task.key, entry.task.attempt) in leased}
    to_time, update = database.dialect.to_time, database.dialect.update
    detailed: list[Row] = [(*key, to_time(e.time), e.details) for key, e in last.items() if e.details is not None]
    if detailed:
        update(cursor, ActivityTask, KEY, ("heartbeat_at", "heartbeat"), detailed)
    bare: list[Row] = [(*key, to_time(e.time)) for key, e in last.items() if e.details is None]
    if bare:
        update(cursor, ActivityTask, KEY, ("heartbeat_at",), bare)


def _put_back(database: Database, cursor: CursorWrapper, retries: list[Retry]) -> None:
    """Put failed attempts back for later, and those that never started as they were."""
    columns = ("owner_id", "attempt", "crashes", "available_at", "expires_at")
    to_time = database.dialect.to_time
    failed: list[Row] = []
    given_back: list[Row] = []
    for retry in retries:
        task, available_at = retry.task, retry.available_at
        expires_at = waits_until(task.scheduled_at, available_at, task.options)
        attempt = task.attempt if retry.counts else task.attempt - 1
        row = (*task.key, None, attempt, 0, to_time(available_at), to_time(expires_at))
        if retry.failure is None:
            given_back.append(row)
        else:
            failed.append((*row, retry.failure.encode().decode()))
    if failed:
        database.dialect.update(cursor, ActivityTask, KEY, (*columns, "last_failure"), failed)
    if given_back:
        database.dialect.update(cursor, ActivityTask, KEY, columns, given_back)


def _defer(database: Database, cursor: CursorWrapper, deferrals: list[Deferral]) -> None:
    """Free tasks without making them available: no claim and no hand-back touches them until they time out."""
    to_time = database.dialect.to_time
    rows: list[Row] = [(*entry.task.key, None, 0, to_time(entry.expires_at)) for entry in deferrals]
    if rows:
        database.dialect.update(cursor, ActivityTask, KEY, ("owner_id", "crashes", "expires_at"), rows)


def delete_unlocked(database: Database, cursor: CursorWrapper, keys: list[TaskKey]) -> None:
    """Delete tasks that nobody needs; one that is locked is just finishing, and its result will be discarded."""
    if keys:
        found = database.dialect.select(cursor, ActivityTask, KEY, KEY, keys, lock="skip")
        if found:
            database.dialect.delete(cursor, ActivityTask, KEY, [tuple(row) for row in found])


def find_locked(database: Database, cursor: CursorWrapper, keys: list[TaskKey]) -> set[TaskKey]:
    """Lock tasks, and return those that somebody else holds locked."""
    select = database.dialect.select
    missing = set(keys) - {TaskKey(*row) for row in select(cursor, ActivityTask, KEY, KEY, keys, lock="skip")}
    return {TaskKey(*row) for row in select(cursor, ActivityTask, KEY, KEY, list(missing))} if missing else set()

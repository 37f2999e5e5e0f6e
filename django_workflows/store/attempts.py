"""The part of a turn that is about attempts: their outcomes, retries, deferrals, heartbeats, and tasks to delete."""

from __future__ import annotations

from django.db.backends.utils import CursorWrapper

from django_workflows.models import ActivityTask

from . import claims
from .database import Database
from .deadlines import waits_until
from .dialects.base import Row
from .mail import send_rows
from .work import ClaimedTask, Deferral, Heartbeat, Outcome, Retry, TaskKey, TurnBatch, TurnResult

KEY = ("instance_id", "command")


def finish_attempts(
    database: Database, cursor: CursorWrapper, worker_id: int, batch: TurnBatch, result: TurnResult
) -> None:
    """Write what became of attempts that are still leased to this worker; of others nothing is written.

    Waits for the rows' locks: they are leased to this worker, so only a passing sweep can hold them, and a row that was
    skipped would lose its outcome.
    """
    entries: list[Outcome | Retry | Deferral | Heartbeat] = [
        *batch.outcomes, *batch.retries, *batch.deferrals, *batch.heartbeats
    ]  # fmt: skip
    if not entries:
        return
    rows = database.dialect.select(
        cursor, ActivityTask, (*KEY, "attempt"), KEY, list({entry.task.key for entry in entries}),
        where=f"AND t.owner_id = {worker_id:d}", lock="wait",
    )  # fmt: skip
    leased = {(TaskKey(instance, command), attempt) for instance, command, attempt in rows}

    def is_leased(task: ClaimedTask) -> bool:
        return (task.key, task.attempt) in leased

    _send_outcomes(database, cursor, [outcome for outcome in batch.outcomes if is_leased(outcome.task)], result)
    # Of several heartbeats of an attempt the last one counts; before the retries, which carry them on.
    heartbeats = {entry.task.key: entry for entry in batch.heartbeats if is_leased(entry.task)}
    _store_heartbeats(database, cursor, list(heartbeats.values()))
    retries = [retry for retry in batch.retries if is_leased(retry.task)]
    _put_back(database, cursor, retries)
    result.unleased += sum(not retry.counts for retry in retries)
    _defer(database, cursor, [deferral for deferral in batch.deferrals if is_leased(deferral.task)])


def _send_outcomes(database: Database, cursor: CursorWrapper, outcomes: list[Outcome], result: TurnResult) -> None:
    """Send the outcomes of tasks whose instances live elsewhere."""
    if outcomes:
        now = database.dialect.to_time(database.dialect.now(cursor))
        rows = [claims.result_row(outcome.task, outcome.event, now) for outcome in outcomes]
        send_rows(database, cursor, rows, result)
        database.dialect.delete(cursor, ActivityTask, KEY, [outcome.task.key for outcome in outcomes])


def _store_heartbeats(database: Database, cursor: CursorWrapper, heartbeats: list[Heartbeat]) -> None:
    to_time, update = database.dialect.to_time, database.dialect.update
    detailed: list[Row] = [(*e.task.key, to_time(e.time), e.details) for e in heartbeats if e.details is not None]
    if detailed:
        update(cursor, ActivityTask, KEY, ("heartbeat_at", "heartbeat"), detailed)
    bare: list[Row] = [(*e.task.key, to_time(e.time)) for e in heartbeats if e.details is None]
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

"""Activity tasks outside turns: the guard of atomic activities, cancellations, deadlines."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db.backends.utils import CursorWrapper

from django_workflows.engine.events import ActivityFailed, ResultEvent, encode_event
from django_workflows.exceptions import PayloadError
from django_workflows.failures import Failure
from django_workflows.models import ActivityTask, InboxEvent, OpenInstance

from . import claims
from .attempts import KEY
from .database import Database
from .deadlines import next_attempt, passed_limit, read_options, timeout_error, waits_until
from .dialects.base import Row
from .work import INBOX_COLUMNS, ClaimedTask, TaskKey

_EXPIRING = (
    "instance_id", "command", "chain_id", "name", "workflow_queue", "attempt", "available_at", "expires_at",
    "scheduled_at", "options",
)  # fmt: skip
_SWEEP = 500


class LeaseLost(Exception):
    """The attempt is not this worker's any more: cancelled, timed out or handed to another worker."""


def complete_atomically(database: Database, worker_id: int, task: ClaimedTask, event: ResultEvent) -> None:
    """Record an atomic activity's result at the end of its own transaction; raises LeaseLost to roll it back.

    A guard by (id, owner, attempt) at the end, not a lock at the start, which a turn would wait for.
    """
    with database.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM {ActivityTask._meta.db_table} "
            "WHERE instance_id = %s AND command = %s AND owner_id = %s AND attempt = %s",
            [*task.key, worker_id, task.attempt],
        )
        if cursor.rowcount != 1:
            raise LeaseLost(f"attempt {task.attempt} of {task.name} was taken away from this worker")
        now = database.dialect.to_time(database.dialect.now(cursor))
        database.dialect.insert(cursor, InboxEvent, INBOX_COLUMNS, [claims.result_row(task, event, now)])


def find_still_wanted(database: Database, worker_id: int, keys: Collection[TaskKey]) -> set[TaskKey]:
    """Return those tasks that are still leased to this worker by an open execution."""
    if not keys:
        return set()
    with database.cursor() as cursor:
        rows = database.dialect.select(
            cursor, ActivityTask, KEY, KEY, list(keys),
            where=f"AND t.owner_id = {worker_id:d} AND EXISTS "
            f"(SELECT 1 FROM {OpenInstance._meta.db_table} o WHERE o.instance_id = t.instance_id)",
        )  # fmt: skip
    return {TaskKey(*row) for row in rows}


def expire(database: Database, now: datetime) -> int:
    """Time out the tasks past their deadline that no worker holds; return how many.

    One that waits for a worker fails. One whose attempt is completed elsewhere fails too, or is tried again as its
    policy says. Found by a plain read and locked by key: a locking scan would hold rows of others on MySQL.
    """
    with database.cursor() as cursor:
        cursor.execute(
            f"SELECT instance_id, command FROM {ActivityTask._meta.db_table} WHERE expires_at <= %s "
            f"ORDER BY expires_at LIMIT {_SWEEP}",
            [database.dialect.to_time(now)],
        )
        keys = [TaskKey(*row) for row in cursor.fetchall()]
    if not keys:
        return 0
    with database.atomic(), database.cursor() as cursor:
        rows = database.dialect.select(
            cursor, ActivityTask, _EXPIRING, KEY, keys, where="AND t.expires_at IS NOT NULL", lock="skip"
        )
        return _time_out(database, cursor, rows, now)


def _time_out(database: Database, cursor: CursorWrapper, rows: list[Row], now: datetime) -> int:
    to_time, from_time = database.dialect.to_time, database.dialect.from_time
    messages: list[Row] = []
    over: list[TaskKey] = []
    retries: list[Row] = []
    for instance, command, chain, name, queue, attempt, available, expires, scheduled, text in rows:
        expires_at, scheduled_at = from_time(expires), from_time(scheduled)
        assert expires_at is not None and scheduled_at is not None
        if expires_at > now:
            continue  # put back with a later deadline since it was found
        key, (options, problem), is_waiting = TaskKey(instance, command), read_options(text), available is not None
        limit = "" if problem else passed_limit(expires_at, scheduled_at, options, is_waiting=is_waiting)
        # One that waits has not been counted yet.
        which = attempt + 1 if is_waiting else attempt
        problem = problem or "its deadline has passed, but its options have no timeout"
        error = timeout_error(limit, name, which, options) if limit else PayloadError(f"{name}: {problem}")
        again_at = next_attempt(error, attempt, scheduled_at, options, now) if limit == "start_to_close" else None
        failure = Failure.of(error)
        if again_at is None:
            event = ActivityFailed(command=command, failure=failure)
            messages.append((chain, instance, event.type, encode_event(event), queue, to_time(now)))
            over.append(key)
        else:
            until = waits_until(scheduled_at, again_at, options)
            retries.append((*key, to_time(again_at), to_time(until), failure.encode().decode()))
    if over:
        database.dialect.insert(cursor, InboxEvent, INBOX_COLUMNS, messages)
        database.dialect.delete(cursor, ActivityTask, KEY, over)
    if retries:
        database.dialect.update(cursor, ActivityTask, KEY, ("available_at", "expires_at", "last_failure"), retries)
    return len(over) + len(retries)

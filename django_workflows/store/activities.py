"""Activity tasks outside turns: the guard of atomic activities, cancellations, deadlines."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django_workflows.engine.events import ActivityFailed, ResultEvent, encode_event
from django_workflows.exceptions import ActivityTimeout
from django_workflows.failures import Failure
from django_workflows.models import ActivityTask, InboxEvent, OpenInstance

from . import claims
from .database import Database
from .work import ClaimedTask, TaskKey

_INBOX = ("chain_id", "instance_id", "type", "data", "queue", "created_at")
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
        database.dialect.insert(cursor, InboxEvent, _INBOX, [claims.result_row(task, event, now)])


def find_still_wanted(database: Database, worker_id: int, keys: Collection[TaskKey]) -> set[TaskKey]:
    """Return those tasks that are still leased to this worker by an open execution."""
    if not keys:
        return set()
    key = ("instance_id", "command")
    with database.cursor() as cursor:
        rows = database.dialect.select(
            cursor, ActivityTask, key, key, list(keys),
            where=f"AND t.owner_id = {worker_id:d} AND EXISTS "
            f"(SELECT 1 FROM {OpenInstance._meta.db_table} o WHERE o.instance_id = t.instance_id)",
        )  # fmt: skip
    return {TaskKey(*row) for row in rows}


def expire(database: Database, now: datetime) -> int:
    """Fail the unleased tasks whose schedule-to-close deadline has passed; return how many."""
    rows = ActivityTask.objects.using(database.alias).filter(expires_at__lte=now, available_at__isnull=False)
    with database.atomic():
        expired = list(rows.select_for_update(skip_locked=True)[:_SWEEP])
        for task in expired:
            failure = Failure.of(
                ActivityTimeout(
                    f"{task.name} did not finish within its schedule_to_close_timeout, after {task.attempt} attempts"
                )
            )
            event = ActivityFailed(command=task.command, failure=failure)
            InboxEvent.objects.using(database.alias).create(
                chain_id=task.chain_id, instance_id=task.instance_id, type=event.type, queue=task.workflow_queue,
                data=encode_event(event), created_at=now,
            )  # fmt: skip
            ActivityTask.objects.using(database.alias).filter(pk=task.pk).delete()
    return len(expired)

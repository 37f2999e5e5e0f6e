"""Worker rows: the lease of a process, and the fence of everything it writes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db.backends.utils import CursorWrapper
from django.db.models import Exists, Model, OuterRef
from django.utils import timezone

from django_workflows.models import ActivityTask, OpenInstance, Worker

from .database import Database
from .deadlines import read_options, waits_until
from .dialects.base import Row

_PAGE = 500  # rows freed in one transaction
_WORKER = Worker._meta.db_table


class WorkerFenced(Exception):
    """This worker was declared dead; nothing it holds is its own any more."""


@dataclass(frozen=True)
class LapsedWorker:
    """A worker whose lease has run out by the database's clock, seen at one beat."""

    id: int
    beat: int


def register(database: Database, *, queues: list[str], slots: int, lease: timedelta, version: str = "") -> int:
    """Insert the row of a new incarnation and return its id, which no other ever had."""
    now = database.now()
    worker = Worker(
        host=socket.gethostname(), process_id=os.getpid(), version=version, queues=queues, slots=slots,
        lease_until=now + lease, started_at=now,
    )  # fmt: skip
    worker.save(using=database.alias, force_insert=True)
    return worker.id


def fence(database: Database, cursor: CursorWrapper, worker_id: int) -> None:
    """Lock the worker's own row for this transaction; raises WorkerFenced when it is not alive any more.

    A lock, not a write: one row updated every turn would collect dead versions while any transaction stays open.
    """

    def check(answer: CursorWrapper) -> None:
        if answer.fetchone() is None:
            raise WorkerFenced(worker_id)

    database.dialect.later(
        cursor,
        f"SELECT id FROM {_WORKER} WHERE id = %s AND state = 'alive' {database.dialect.row_lock}",
        [worker_id],
        check,
    )


def renew(database: Database, worker_id: int, lease: timedelta) -> None:
    """Extend the lease; raises WorkerFenced."""
    with database.atomic(), database.cursor() as cursor:
        fence(database, cursor, worker_id)
        until = database.dialect.to_time(database.dialect.now(cursor) + lease)
        cursor.execute(f"UPDATE {_WORKER} SET beat = beat + 1, lease_until = %s WHERE id = %s", [until, worker_id])


def find_lapsed(database: Database, worker_id: int) -> list[LapsedWorker]:
    """Return the other workers whose lease has run out."""
    with database.cursor() as cursor:
        now = database.dialect.to_time(database.dialect.now(cursor))
        cursor.execute(
            f"SELECT id, beat FROM {_WORKER} WHERE state = 'alive' AND lease_until < %s AND id <> %s", [now, worker_id]
        )
        return [LapsedWorker(*row) for row in cursor.fetchall()]


def declare_dead(database: Database, lapsed: LapsedWorker) -> bool:
    """Mark a worker dead for good, unless it renewed or somebody holds its row; return whether it was done.

    In a transaction of its own: two turns that reaped each other would deadlock.
    """
    with database.atomic():
        rows = Worker.objects.using(database.alias).filter(pk=lapsed.id, state=Worker.State.ALIVE, beat=lapsed.beat)
        row = rows.select_for_update(skip_locked=True).first()
        if row is None or row.lease_until >= database.now():
            return False
        row.state = Worker.State.DEAD
        row.save(using=database.alias, update_fields=["state"])
        return True


def retire(database: Database, worker_id: int) -> None:
    """Declare this worker itself dead, at the end of its life."""
    Worker.objects.using(database.alias).filter(pk=worker_id).update(state=Worker.State.DEAD)


def hand_back(database: Database) -> int:
    """Free everything whose owner is not an alive worker, and return how much it was.

    Idempotent, and blind to who declared whom dead: it survives a reaper that dies half-way.
    """
    freed = _free(database, OpenInstance, ("open_key",), ("owner_id",), lambda key: (key, None))
    now = database.now()
    columns = ("owner_id", "available_at", "expires_at")
    freed += _free(
        database, ActivityTask, ("instance_id", "command"), columns, partial(_waiting_task, database, now),
        read=("scheduled_at", "options"),
    )  # fmt: skip
    if not freed:
        _delete_unreferenced(database)
    return freed


def _waiting_task(database: Database, now: datetime, instance: int, command: int, scheduled: Any, text: str) -> Row:
    """Return the values of a task that waits for a worker again."""
    scheduled_at = database.dialect.from_time(scheduled)
    assert scheduled_at is not None
    expires_at = waits_until(scheduled_at, now, read_options(text)[0])
    return (instance, command, None, database.dialect.to_time(now), database.dialect.to_time(expires_at))


def _free(
    database: Database, model: type[Model], key: tuple[str, ...], columns: tuple[str, ...], change: Callable[..., Row],
    *, read: tuple[str, ...] = (),
) -> int:  # fmt: skip
    """Change the rows of owners that are gone, found by a plain read and locked by key: a locking scan would hold
    the rows of the living for a moment on MySQL. `change` gets the key and what was read; returns key and columns."""
    # All keys at once: pages of a query would end at what others hold locked, or leave the rest to the next look.
    with database.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(key)}, owner_id FROM {model._meta.db_table} o WHERE owner_id IS NOT NULL "
            f"AND NOT EXISTS (SELECT 1 FROM {_WORKER} w WHERE w.id = o.owner_id AND w.state = 'alive')"
        )
        found = cursor.fetchall()
    owners = ", ".join(str(int(owner)) for owner in {row[-1] for row in found})
    freed = 0
    for start in range(0, len(found), _PAGE):
        with database.atomic(), database.cursor() as cursor:
            locked = database.dialect.select(
                cursor, model, (*key, *read), key, [tuple(row[:-1]) for row in found[start : start + _PAGE]],
                where=f"AND t.owner_id IN ({owners})", lock="skip",
            )  # fmt: skip
            if locked:
                database.dialect.update(cursor, model, key, columns, [change(*row) for row in locked])
        freed += len(locked)
    return freed


def _delete_unreferenced(database: Database) -> None:
    """Delete dead workers that nothing points to, except those of the last day, which people may want to see."""
    yesterday = timezone.now() - timedelta(days=1)
    owners = OpenInstance.objects.using(database.alias).filter(owner_id=OuterRef("pk"))
    Worker.objects.using(database.alias).filter(
        ~Exists(owners), state=Worker.State.DEAD, lease_until__lt=yesterday
    ).delete()

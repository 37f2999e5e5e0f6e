"""Rows whose chain is closed, and rows that must leave the range of the poll: collected by whoever meets them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

from django.db.models import Exists, Model, OuterRef, Q, QuerySet

from django_workflows.engine.events import (
    ChildScheduled,
    Event,
    SignalReceived,
    SignalWithStart,
    UpdateRequested,
    decode_event,
)
from django_workflows.exceptions import PayloadError
from django_workflows.keys import is_key
from django_workflows.models import ActivityTask, InboxEvent, OpenInstance, Timer, WorkflowInstance, WorkflowUpdate

from . import children, with_start
from .answers import leave_unanswered
from .database import Database
from .work import ChildOrder, InboxRow

logger = logging.getLogger("django_workflows.store")

_SWEEP = 500


def collect_inbox(database: Database, rows: list[InboxRow]) -> None:
    """Delete results and cancel requests of closed chains; park their signals, which stay visible as undelivered.

    Safe at once: an open row is inserted in the transaction of its first inbox row, and chain ids are never reused.
    An abandoned child that a closed parent has ordered is started, a signal with a start starts what it carries.
    """
    _discard(database, [row for row in rows if row.type != "SignalReceived"])
    _park(database, [row.id for row in rows if row.type == "SignalReceived"])


def collect_open(database: Database, keys: Collection[str]) -> None:
    """Delete those open rows whose execution does not exist: nothing could ever close them and free their id."""
    if keys:
        opened = OpenInstance.objects.using(database.alias).filter(pk__in=keys)
        instances = WorkflowInstance.objects.using(database.alias).filter(pk=OuterRef("instance_id"))
        lost = opened.filter(~Exists(instances)).values_list("pk", flat=True)
        if deleted := _delete(database, OpenInstance, ("open_key",), lost):
            logger.error("%s open rows had no execution and were deleted", deleted)


def _discard(database: Database, rows: list[InboxRow]) -> int:
    """Do what is left to do for rows of closed chains, and delete them; return how many."""
    garbage: dict[int, str] = {}  # with the update that a row asks for, if it does
    unreadable: list[int] = []
    unread: defaultdict[int, dict[int, SignalWithStart]] = defaultdict(dict)
    done = 0
    for row in rows:
        event = _decode(row)
        if isinstance(event, ChildScheduled) and row.instance is not None:
            done += children.carry_out(database, ChildOrder(row.id, row.instance, event))
        elif isinstance(event, SignalWithStart):
            unread[row.chain][row.id] = event
        elif row.type == SignalWithStart.__name__:
            unreadable.append(row.id)
        else:
            asked = event.update_id if isinstance(event, UpdateRequested) else ""
            garbage[row.id] = asked if is_key(asked) else ""
    unanswered = _answer_updates(database, {update_id for update_id in garbage.values() if update_id})
    done += sum(with_start.send_again(database, chain, signals) for chain, signals in unread.items())
    done += _keep(database, unreadable)
    return done + _delete(database, InboxEvent, ("id",), [row for row in garbage if garbage[row] not in unanswered])


def _keep(database: Database, ids: list[int]) -> int:
    """Keep signals with a start that cannot be read, and so start nothing, as undelivered ones; return how many."""
    return _change(database, ids, type=SignalReceived.__name__, queue=None)


def _decode(row: InboxRow) -> Event | None:
    try:
        return decode_event(row.type, row.data)
    except PayloadError:
        return None


def park_blocked(database: Database, rows: list[InboxRow]) -> None:
    """Take the inbox rows of blocked, unowned instances out of the poll's range.

    A later claim loads by chain and so finds parked rows too; rows of an instance that was claimed in between are left
    alone, since its owner reads the poll.
    """
    keys = list({row.open_key for row in rows if row.open_key is not None})
    if not keys:
        return
    with database.atomic(), database.cursor() as cursor:
        # Locked, so that nobody unblocks it meanwhile: its rows come back into the range once, with that very step.
        blocked = database.dialect.select(
            cursor, OpenInstance, ("chain_id",), ("open_key",), keys,
            where="AND t.owner_id IS NULL AND t.blocks > 0", lock="skip",
        )  # fmt: skip
        chains = {chain for (chain,) in blocked}
        _park(database, [row.id for row in rows if row.chain in chains])


def sweep(database: Database) -> int:
    """Delete activity tasks, timers and parked inbox rows whose execution is not open any more; return how many.

    Read without locks first: in one snapshot, work without an open row is garbage for good. A locking read may see a
    row that is younger than what its subquery sees.
    """
    opened = OpenInstance.objects.using(database.alias)
    closed = ~Exists(opened.filter(instance_id=OuterRef("instance_id")))
    removed = 0
    for model in (ActivityTask, Timer):
        work = model._default_manager.using(database.alias).filter(closed)
        keys = work.values_list("instance_id", "command")[:_SWEEP]
        removed += _delete(database, model, ("instance_id", "command"), keys)
    garbage = _parked_garbage(database).values_list("id", "chain_id", "instance_id", "type", "data")[:_SWEEP]
    return removed + _discard(database, [InboxRow(*row) for row in garbage])


def _parked_garbage(database: Database) -> QuerySet[InboxEvent]:
    """Return the inbox rows of closed chains that no poll meets: parked while their instance was blocked.

    Of signals only those that were committed after their instance had been removed: the others stay, to be seen.
    """
    opened = OpenInstance.objects.using(database.alias).filter(chain_id=OuterRef("chain_id"))
    parked = InboxEvent.objects.using(database.alias).filter(~Exists(opened), queue__isnull=True)
    return parked.exclude(_is_kept(database), type="SignalReceived")


def _is_kept(database: Database) -> Q:
    """Return the condition that the chain of a row has not been removed."""
    instances = WorkflowInstance.objects.using(database.alias)
    first, others = instances.filter(pk=OuterRef("chain_id")), instances.filter(chain_id=OuterRef("chain_id"))
    return Q(Exists(first)) | Q(Exists(others))


def _answer_updates(database: Database, ids: set[str]) -> set[str]:
    """Reject the updates that reached their instance after it had closed; delete them where it has been removed.

    Skips those that somebody holds locked, since an application may be removing the instance in a transaction that
    takes long; returns them.
    """
    if not ids:
        return set()
    removed = WorkflowUpdate.objects.using(database.alias).filter(pk__in=ids).exclude(_is_kept(database))
    _delete(database, WorkflowUpdate, ("update_id",), removed.values_list("pk", flat=True))
    key, pending = ("update_id",), f"AND t.status = '{WorkflowUpdate.Status.PENDING.value}'"
    with database.atomic(), database.cursor() as cursor:
        select = partial(database.dialect.select, cursor, WorkflowUpdate, key, key, list(ids), where=pending)
        leave_unanswered(
            database, cursor, [row[0] for row in select(lock="skip")], WorkflowUpdate.Status.REJECTED,
            "the instance had closed before the update reached it",
        )  # fmt: skip
        return {row[0] for row in select()}


def _delete(database: Database, model: type[Model], key: tuple[str, ...], keys: Iterable[Any]) -> int:
    """Delete rows by primary key, except those that somebody holds locked; return how many."""
    if not (candidates := list(keys)):
        return 0
    with database.atomic(), database.cursor() as cursor:
        found = database.dialect.select(cursor, model, key, key, candidates, lock="skip")
        return database.dialect.delete_counted(cursor, model, key, [tuple(row) for row in found]) if found else 0


def _park(database: Database, ids: list[int]) -> None:
    _change(database, ids, queue=None)


def _change(database: Database, ids: list[int], **columns: Any) -> int:
    """Change columns of inbox rows, except those that somebody holds locked; return how many."""
    if not ids:
        return 0
    with database.atomic(), database.cursor() as cursor:
        found = database.dialect.select(cursor, InboxEvent, ("id",), ("id",), ids, lock="skip")
        if found:
            changes = [(row[0], *columns.values()) for row in found]
            database.dialect.update(cursor, InboxEvent, ("id",), tuple(columns), changes)
        return len(found)


def wake_blocked(database: Database, now: object) -> int:
    """Make every blocked instance due for another try: a new worker may hold the code that was missing."""
    from .rows import RETRY_COMMAND

    timers = Timer.objects.using(database.alias).filter(command=RETRY_COMMAND, wake_at__gt=now)
    return timers.update(wake_at=now)

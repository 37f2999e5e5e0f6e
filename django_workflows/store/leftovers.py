"""Rows whose chain is closed, and rows that must leave the range of the poll: collected by whoever meets them."""

from __future__ import annotations

from django.db.models import Exists, OuterRef

from django_workflows.models import ActivityTask, InboxEvent, OpenInstance, Timer

from .database import Database
from .work import InboxRow

_SWEEP = 500


def collect_inbox(database: Database, rows: list[InboxRow]) -> None:
    """Delete results and cancel requests of closed chains; park their signals, which stay visible as undelivered.

    Safe at once: an open row is inserted in the transaction of its first inbox row, and chain ids are never reused.
    """
    inbox = InboxEvent.objects.using(database.alias)
    garbage = [row.id for row in rows if row.type != "SignalReceived"]
    undelivered = [row.id for row in rows if row.type == "SignalReceived"]
    for model_rows, action in ((garbage, "delete"), (undelivered, "park")):
        if not model_rows:
            continue
        with database.atomic():
            found = list(
                inbox.select_for_update(skip_locked=True).filter(pk__in=model_rows).values_list("pk", flat=True)
            )
            if action == "delete":
                inbox.filter(pk__in=found).delete()
            else:
                inbox.filter(pk__in=found).update(queue=None)


def park_blocked(database: Database, rows: list[InboxRow]) -> None:
    """Take the inbox rows of blocked, unowned instances out of the poll's range.

    A later claim loads by chain and so finds parked rows too; the condition keeps rows of an instance that was
    claimed in between, whose owner reads the poll.
    """
    blocked = OpenInstance.objects.using(database.alias).filter(
        chain_id=OuterRef("chain_id"), owner_id__isnull=True, blocks__gt=0
    )
    ids = [row.id for row in rows]
    InboxEvent.objects.using(database.alias).filter(Exists(blocked), pk__in=ids).update(queue=None)


def sweep(database: Database) -> int:
    """Delete activity tasks, timers and parked inbox rows whose execution is not open any more; return how many."""
    opened = OpenInstance.objects.using(database.alias).filter(instance_id=OuterRef("instance_id"))
    removed = 0
    for model in (ActivityTask, Timer):
        rows = model._default_manager.using(database.alias).filter(~Exists(opened))
        with database.atomic():
            keys = [key for (key,) in rows.select_for_update(skip_locked=True).values_list("pk")[:_SWEEP]]
            if keys:
                removed += model._default_manager.using(database.alias).filter(pk__in=keys).delete()[0]
    return removed + _sweep_parked(database)


def _sweep_parked(database: Database) -> int:
    """Delete what was parked while its instance was blocked and then terminated: no poll meets these rows."""
    opened = OpenInstance.objects.using(database.alias).filter(chain_id=OuterRef("chain_id"))
    inbox = InboxEvent.objects.using(database.alias)
    rows = inbox.filter(~Exists(opened), queue__isnull=True).exclude(type="SignalReceived")
    with database.atomic():
        keys = list(rows.select_for_update(skip_locked=True).values_list("pk", flat=True)[:_SWEEP])
        return inbox.filter(pk__in=keys).delete()[0] if keys else 0


def wake_blocked(database: Database, now: object) -> int:
    """Make every blocked instance due for another try: a new worker may hold the code that was missing."""
    from .rows import RETRY_COMMAND

    timers = Timer.objects.using(database.alias).filter(command=RETRY_COMMAND, wake_at__gt=now)
    return timers.update(wake_at=now)

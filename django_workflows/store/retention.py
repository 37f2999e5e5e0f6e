"""Removing closed instances with everything that is theirs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db.models import Exists, OuterRef

from django_workflows.exceptions import InstanceNotFinished
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    InstanceStatus,
    OpenInstance,
    Timer,
    WorkflowInstance,
)

from .database import Database
from .messages import find_instance

BATCH = 500


def remove(database: Database, instance_id: str, execution_id: str | None) -> None:
    """Remove one closed execution; raises InstanceNotFound or InstanceNotFinished."""
    instance = find_instance(database, instance_id, execution_id)
    if not InstanceStatus(instance.status).is_closed:
        raise InstanceNotFinished(
            f"expected instance {instance_id!r} to be closed before it is removed, found it "
            f"{instance.get_status_display().lower()}; cancel or terminate it first"
        )
    _remove_batch(database, [instance.pk])


def prune(database: Database, closed_before: datetime, statuses: Iterable[str] | None = None) -> int:
    """Remove the executions closed before a time, in bounded transactions, and return how many."""
    removed = 0
    while True:
        rows = WorkflowInstance.objects.using(database.alias).filter(closed_at__lt=closed_before)
        if statuses is not None:
            rows = rows.filter(status__in=list(statuses))
        page = list(rows.order_by("closed_at", "id").values_list("pk", flat=True)[:BATCH])
        if not page:
            return removed
        done = _remove_batch(database, page)
        removed += done
        if not done:
            return removed  # all of them are locked by others: the next sweep comes back


def _remove_batch(database: Database, candidates: list[int]) -> int:
    with database.atomic():
        instances = WorkflowInstance.objects.using(database.alias).filter(pk__in=candidates, closed_at__isnull=False)
        locked = list(instances.select_for_update(skip_locked=True).values_list("pk", "chain_id"))
        keys = [pk for pk, _ in locked]
        chains = {chain or pk for pk, chain in locked}
        for model in (ActivityTask, Timer, HistoryEvent):
            rows = model._default_manager.using(database.alias).filter(instance_id__in=keys)
            rows._raw_delete(database.alias)  # type: ignore[attr-defined]
        # Undelivered signals belong to the chain; they stay while any execution of it does.
        others = (
            WorkflowInstance.objects.using(database.alias).filter(chain_id=OuterRef("chain_id")).exclude(pk__in=keys)
        )
        open_rows = OpenInstance.objects.using(database.alias).filter(chain_id=OuterRef("chain_id"))
        inbox = InboxEvent.objects.using(database.alias).filter(
            ~Exists(others), ~Exists(open_rows), chain_id__in=chains
        )
        inbox_ids = list(inbox.values_list("pk", flat=True))
        InboxEvent.objects.using(database.alias).filter(pk__in=inbox_ids).delete()
        instances.model._default_manager.using(database.alias).filter(pk__in=keys)._raw_delete(database.alias)  # type: ignore[attr-defined]
    return len(keys)

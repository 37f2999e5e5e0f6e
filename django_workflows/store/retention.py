"""Removing closed instances with everything that is theirs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from math import inf
from typing import Any

from django.db.backends.utils import CursorWrapper
from django.db.models import Model, Q

from django_workflows.exceptions import InstanceNotFinished
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    InstanceStatus,
    Timer,
    WorkflowInstance,
)

from .database import Database
from .messages import find_instance

BATCH = 500  # instances in one transaction, and
MOST_EVENTS = 5000  # history events
_PAGE = 5000  # keys in one statement


def remove(database: Database, instance_id: str, execution_id: str | None) -> None:
    """Remove a closed instance, or the one execution that is bound; raises InstanceNotFound or InstanceNotFinished.

    An instance that continued as new goes with all executions of its chain: none of them is a whole without the last.
    """
    instance = find_instance(database, instance_id, execution_id)
    if not InstanceStatus(instance.status).is_closed:
        raise InstanceNotFinished(
            f"expected instance {instance_id!r} to be closed before it is removed, found it "
            f"{instance.get_status_display().lower()}; cancel or terminate it first"
        )
    keys = [instance.pk]
    if execution_id is None:
        chain = WorkflowInstance.objects.using(database.alias).filter(chain_id=instance.chain)
        keys = [instance.chain, *chain.values_list("pk", flat=True)]
    _remove_batch(database, keys, skip_locked=False)


def prune(
    database: Database, closed_before: datetime, statuses: Iterable[str] | None = None, *, seconds: float = inf
) -> int:
    """Remove the executions closed before a time, in bounded transactions, and return how many.

    Begins no further transaction after `seconds`. Executions that others hold locked are left for the next time.
    """
    removed = 0
    ends = time.monotonic() + seconds
    held: set[int] = set()
    closed = WorkflowInstance.objects.using(database.alias).filter(closed_at__lt=closed_before)
    if statuses is not None:
        closed = closed.filter(status__in=list(statuses))
    while True:
        rows = closed.exclude(pk__in=held).order_by("closed_at", "id")
        batch = _bounded(list(rows.values_list("pk", "history_length")[:BATCH]))
        if not batch:
            return removed
        done = _remove_batch(database, batch, skip_locked=True)
        removed += len(done)
        if time.monotonic() >= ends:
            return removed
        held |= set(batch) - set(done)


def _bounded(page: list[tuple[int, int]]) -> list[int]:
    """Return the head of a page whose histories have at most so many events together, at least one instance."""
    batch: list[int] = []
    events = 0
    for pk, length in page:
        events += length
        if batch and events > MOST_EVENTS:
            break
        batch.append(pk)
    return batch


def _remove_batch(database: Database, candidates: list[int], *, skip_locked: bool) -> list[int]:
    with database.atomic():
        instances = WorkflowInstance.objects.using(database.alias).filter(pk__in=candidates, closed_at__isnull=False)
        locked = list(instances.select_for_update(skip_locked=skip_locked).values_list("pk", "chain_id"))
        keys = [pk for pk, _ in locked]
        if not keys:
            return []
        with database.cursor() as cursor:
            for model, second in ((ActivityTask, "command"), (Timer, "command"), (HistoryEvent, "sequence")):
                rows = model._default_manager.using(database.alias).filter(instance_id__in=keys)
                _delete(database, cursor, model, ("instance_id", second), rows.values_list("instance_id", second))
            _delete(database, cursor, InboxEvent, ("id",), _inbox_of(database, locked))
            _delete(database, cursor, WorkflowInstance, ("id",), keys)
    return keys


def _inbox_of(database: Database, instances: list[tuple[int, int | None]]) -> Iterable[int]:
    """Return the inbox rows of chains that go whole: undelivered signals stay while any execution of theirs does."""
    keys = [pk for pk, _ in instances]
    chains = {chain or pk for pk, chain in instances}
    rows = WorkflowInstance.objects.using(database.alias).exclude(pk__in=keys)
    kept = {row.chain for row in rows.filter(Q(pk__in=chains) | Q(chain_id__in=chains)).only("id", "chain_id")}
    return InboxEvent.objects.using(database.alias).filter(chain_id__in=chains - kept).values_list("pk", flat=True)


def _delete(
    database: Database, cursor: CursorWrapper, model: type[Model], key: tuple[str, ...], keys: Iterable[Any]
) -> None:
    # By primary key, as turns do: what the ORM makes of it may lock rows of others on MySQL.
    found = list(keys)
    for start in range(0, len(found), _PAGE):
        database.dialect.delete(cursor, model, key, found[start : start + _PAGE])

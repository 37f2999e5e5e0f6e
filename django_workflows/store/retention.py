"""Removing closed instances with everything that is theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper
from django.db.models import BigIntegerField, Exists, Model, OuterRef, QuerySet
from django.db.models.functions import Coalesce

from django_workflows.exceptions import InstanceNotFinished
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    InstanceStatus,
    Timer,
    WorkflowInstance,
    WorkflowInstanceQuerySet,
    WorkflowUpdate,
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
    if instance.closed_at is None:
        raise InstanceNotFinished(
            f"expected instance {instance_id!r} to be closed before it is removed, found it "
            f"{instance.get_status_display().lower()}; cancel or terminate it first"
        )
    keys = [instance.pk]
    if execution_id is None:
        chain = WorkflowInstance.objects.using(database.alias).filter(chain_id=instance.chain)
        keys = [instance.chain, *chain.order_by("id").values_list("pk", flat=True)]
    with database.atomic():
        for page in _pages(keys, BATCH):
            _remove_batch(database, page, skip_locked=False)


def prune(database: Database, status: str, closed_before: datetime, *, batch_size: int = BATCH) -> Iterator[int]:
    """Remove the executions that closed with a status before a time: one bounded transaction for each item drawn.

    Each item is how many went. Executions that others hold locked are left for the next time.
    """
    prunable = _prunable(database, status, closed_before).order_by("closed_at", "id")
    held: set[int] = set()
    while True:
        rows = prunable.exclude(pk__in=held).values_list("pk", "history_length")
        batch = _bounded(list(rows[:batch_size]))
        if not batch:
            return
        removed = _remove_batch(database, batch, skip_locked=True)
        held |= set(batch).difference(removed)
        yield len(removed)


def count_prunable(database: Database, status: str, closed_before: datetime) -> int:
    """Return how many executions `prune` would remove."""
    return _prunable(database, status, closed_before).count()


def _prunable(database: Database, status: str, closed_before: datetime) -> WorkflowInstanceQuerySet:
    return WorkflowInstance.objects.using(database.alias).filter(status=status, closed_at__lt=closed_before)


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
        keys = list(instances.select_for_update(skip_locked=skip_locked).values_list("pk", flat=True))
        if not keys:
            return []
        with database.cursor() as cursor:
            for model, key, rows in _belongings(database, keys):
                _delete(database, cursor, model, key, rows)
            _delete(database, cursor, WorkflowInstance, ("id",), keys)
    return keys


def _belongings(database: Database, keys: list[int]) -> Iterator[tuple[type[Model], tuple[str, ...], Iterable[Any]]]:
    """Give the tables with rows of these executions, their key columns, and the keys of the rows."""
    for model, second in ((ActivityTask, "command"), (Timer, "command"), (HistoryEvent, "sequence")):
        of_executions = model._default_manager.using(database.alias).filter(instance_id__in=keys)
        yield model, ("instance_id", second), of_executions.values_list("instance_id", second)
    chains = _ended_chains(database, keys)
    for chain_model, key in ((InboxEvent, "id"), (WorkflowUpdate, "update_id")):
        of_chains = chain_model._default_manager.using(database.alias).filter(chain_id__in=chains)
        yield chain_model, (key,), of_chains.values_list(key, flat=True)
    yield WorkflowUpdate, ("update_id",), _answered_by(database, keys).values_list("update_id", flat=True)


def _answered_by(database: Database, keys: list[int]) -> QuerySet[WorkflowUpdate]:
    """Return the updates that these executions answered: of a chain that goes on for ever, none goes with the last."""
    executions = WorkflowInstance.objects.using(database.alias).filter(pk__in=keys).annotate(first_id=_first_id())
    answering = executions.filter(
        first_id=OuterRef("chain_id"), created_at__lt=OuterRef("answered_at"), closed_at__gte=OuterRef("answered_at")
    )
    chains = list(executions.values_list("first_id", flat=True).distinct())
    return WorkflowUpdate.objects.using(database.alias).filter(Exists(answering), chain_id__in=chains)


def _first_id() -> Coalesce:
    return Coalesce("chain_id", "id", output_field=BigIntegerField())


def _ended_chains(database: Database, keys: list[int]) -> list[int]:
    """Return the chains whose last execution is among these closed and locked ones.

    What belongs to a chain goes with its last execution, whatever is left of the others. So whoever removes that one
    decides alone: two that remove different parts of one chain at the same time need not know of each other.
    """
    instances = WorkflowInstance.objects.using(database.alias)
    later = instances.filter(chain_id=OuterRef("first_id"), id__gt=OuterRef("id"))
    # What continued as new is never the last: no look at the rest of a chain that may be long.
    rows = instances.filter(pk__in=keys).exclude(status=InstanceStatus.CONTINUED_AS_NEW)
    ended = rows.annotate(first_id=_first_id()).filter(~Exists(later))
    return list(ended.values_list("first_id", flat=True))


def _delete(
    database: Database, cursor: CursorWrapper, model: type[Model], key: tuple[str, ...], keys: Iterable[Any]
) -> None:
    # By primary key, as turns do: what the ORM makes of it may lock rows of others on MySQL.
    for page in _pages(list(keys), _PAGE):
        database.dialect.delete(cursor, model, key, page)


def _pages(keys: list[Any], size: int) -> Iterator[list[Any]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))

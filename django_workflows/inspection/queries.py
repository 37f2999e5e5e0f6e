"""What is read of instances and workers to be shown: a fixed number of queries each, bounded in rows and in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Left, Length, Substr
from django.utils.translation import gettext as _

from django_workflows.keys import MAX_LENGTH, key_of
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    InstanceStatus,
    OpenInstance,
    Timer,
    Worker,
    WorkflowInstance,
    WorkflowUpdate,
)
from django_workflows.store.rows import RETRY_COMMAND

ROW_LIMIT = 100
HEAD_LENGTH = 1000


def with_history_length(instances: QuerySet[Any]) -> QuerySet[Any]:
    """Annotate `events`: the open row has the current length, the instance row the final one."""
    live = OpenInstance.objects.filter(instance_id=OuterRef("pk")).values("history_length")[:1]
    annotated: QuerySet[Any] = instances.annotate(events=Coalesce(Subquery(live), F("history_length")))
    return annotated


def search_instances(instances: QuerySet[Any], term: str) -> QuerySet[Any]:
    """Return the instances with exactly this instance or execution ID, else those whose instance ID begins so."""
    if len(term) > MAX_LENGTH:
        return instances.none()
    exact = Q(instance_key=key_of(term))
    if term.isascii():  # MySQL refuses to compare its ascii column with anything else
        exact |= Q(execution_id=term)
    found = instances.filter(exact)
    if found.exists():
        return found
    return instances.filter(instance_id__startswith=term.removesuffix("*"))


def with_id_prefix(instances: QuerySet[Any], prefix: str) -> QuerySet[Any]:
    """Return the instances whose instance ID begins exactly so, whatever the case means to the database."""
    # SQLite's LIKE ignores case, MySQL's LIKE is exact, and its = is what ignores case and accents.
    found: QuerySet[Any] = instances.filter(instance_id__startswith=prefix)
    exact: QuerySet[Any] = found.alias(head=Left("instance_id", len(prefix))).filter(head=prefix)
    return exact


def payload_columns(column: str, limit: int | None) -> dict[str, Any]:
    """Return the annotations that fetch a payload column: its length, and so much of its text (None: all, 0: none)."""
    columns: dict[str, Any] = {f"{column}_length": Length(column)}
    if limit != 0:
        columns[f"{column}_text"] = F(column) if limit is None else Substr(column, 1, limit)
    return columns


def load_payloads(instance: WorkflowInstance, payload_limit: int | None) -> dict[str, Any]:
    rows: QuerySet[Any, Any] = WorkflowInstance.objects.using(instance._state.db).filter(pk=instance.pk)
    columns = payload_columns("input", payload_limit) | payload_columns("result", payload_limit)
    payloads: dict[str, Any] = rows.values("failure", **columns).get()
    return payloads


def load_relatives(instance: WorkflowInstance) -> dict[int, WorkflowInstance]:
    """Return the parent, the root and the first execution, as far as they still exist."""
    candidates = (instance.parent_id, instance.root_id, instance.chain_id)
    ids = {pk for pk in candidates if pk is not None and pk != instance.pk}
    if not ids:
        return {}
    rows = WorkflowInstance.objects.using(instance._state.db).filter(pk__in=ids)
    return {row.pk: row for row in rows.only("name", "instance_id")}


def has_children(instance: WorkflowInstance) -> bool:
    return WorkflowInstance.objects.using(instance._state.db).filter(parent_id=instance.pk).exists()


def first_rows(rows: QuerySet[Any], limit: int = ROW_LIMIT) -> tuple[list[Any], bool]:
    """Return so many rows at most, and whether there are more."""
    found = list(rows[: limit + 1])
    return found[:limit], len(found) > limit


@dataclass(frozen=True)
class LiveRows:
    """What an open instance has at work, waits for and has not read; `more_*` tells of rows left out."""

    open_row: OpenInstance | None = None
    next_try: datetime | None = None  # of a blocked instance
    activities: Sequence[ActivityTask] = ()
    more_activities: bool = False
    timers: Sequence[Timer] = ()
    more_timers: bool = False
    messages: Sequence[dict[str, Any]] = ()
    more_messages: bool = False

    @property
    def owner_ids(self) -> set[int]:
        owners = {task.owner_id for task in self.activities} | {self.open_row.owner_id if self.open_row else None}
        return {owner for owner in owners if owner is not None}


def load_live_rows(instance: WorkflowInstance, payload_limit: int | None) -> LiveRows:
    if not is_open(instance):
        return LiveRows()  # what a closed instance left behind waits for nothing
    database = instance._state.db
    tasks = ActivityTask.objects.using(database).filter(instance_id=instance.pk).order_by("command")
    timers = Timer.objects.using(database).filter(instance_id=instance.pk)
    retries = timers.filter(command=RETRY_COMMAND).values_list("wake_at", flat=True)
    tasks = tasks.defer("input", "options", "heartbeat").annotate(**payload_columns("heartbeat", payload_limit))
    activities, more_activities = first_rows(tasks)
    waiting, more_timers = first_rows(timers.exclude(command=RETRY_COMMAND).order_by("fire_at", "command"))
    messages, more_messages = first_rows(unread_messages(instance, payload_limit))
    return LiveRows(
        open_row=OpenInstance.objects.using(database).filter(instance_id=instance.pk).first(),
        next_try=retries.first() if instance.status == InstanceStatus.BLOCKED else None,
        activities=activities,
        more_activities=more_activities,
        timers=waiting,
        more_timers=more_timers,
        messages=messages,
        more_messages=more_messages,
    )


def unread_messages(instance: WorkflowInstance, payload_limit: int | None) -> QuerySet[Any, dict[str, Any]]:
    rows: QuerySet[Any, Any] = (
        InboxEvent.objects.using(instance._state.db).filter(chain_id=instance.chain).order_by("id")
    )
    rows = rows.filter(Q(instance_id=None) | Q(instance_id=instance.pk))
    columns = payload_columns("data", payload_limit)
    return rows.values("id", "type", "queue", "created_at", head=Substr("data", 1, HEAD_LENGTH), **columns)


def load_updates(instance: WorkflowInstance, payload_limit: int | None) -> tuple[list[dict[str, Any]], bool]:
    """Return the newest updates of the instance's chain, and whether there are more."""
    rows: QuerySet[Any, Any] = WorkflowUpdate.objects.using(instance._state.db).filter(chain_id=instance.chain)
    columns = payload_columns("input", payload_limit) | payload_columns("result", payload_limit)
    return first_rows(
        rows.order_by("-created_at").values("name", "status", "created_at", "answered_at", "failure", **columns)
    )


def history(instance: WorkflowInstance, payload_limit: int | None) -> QuerySet[Any, dict[str, Any]]:
    rows: QuerySet[Any, Any] = HistoryEvent.objects.using(instance._state.db).filter(instance_id=instance.pk)
    columns = payload_columns("data", payload_limit)
    return rows.values("sequence", "type", "time", head=Substr("data", 1, HEAD_LENGTH), **columns)


@dataclass(frozen=True)
class Workers:
    """Which queues live workers serve, with activity slots or at all, and the names of workers on the page."""

    activity_queues: frozenset[str]
    queues: frozenset[str]
    names: dict[int, str]

    def name(self, worker_id: int | None) -> str:
        if worker_id is None:
            return _("an unknown worker")
        return self.names.get(worker_id) or _("worker %(id)s (gone)") % {"id": worker_id}


def load_workers(database: str | None, owner_ids: set[int], now: datetime) -> Workers:
    is_alive = Q(state=Worker.State.ALIVE, lease_until__gte=now)
    rows = list(Worker.objects.using(database).filter(is_alive | Q(pk__in=owner_ids)))
    alive = [row for row in rows if row.state == Worker.State.ALIVE and row.lease_until >= now]
    return Workers(
        activity_queues=_queues_of(row for row in alive if row.slots > 0),
        queues=_queues_of(alive),
        names={row.pk: str(row) for row in rows},
    )


def _queues_of(workers: Iterable[Worker]) -> frozenset[str]:
    return frozenset(str(queue) for row in workers if isinstance(row.queues, list) for queue in row.queues)


def is_open(instance: WorkflowInstance) -> bool:
    return instance.status in (InstanceStatus.RUNNING, InstanceStatus.BLOCKED)

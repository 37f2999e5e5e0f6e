"""Everything about one instance: loaded in a fixed number of queries, as a document and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet
from django.utils import timezone

from django_workflows.inspection import queries
from django_workflows.inspection.presentation import display_events, event_subject
from django_workflows.models import ActivityTask, OpenInstance, WorkflowInstance, WorkflowUpdate

from .instances import call_of, stored, summary, value_of


@dataclass(frozen=True)
class Details:
    """The rows about one instance; lists hold the first hundred, `cut` names those that have more."""

    instance: WorkflowInstance
    now: datetime
    live: queries.LiveRows
    workers: queries.Workers
    parent: WorkflowInstance | None
    subject: str
    executions: int  # of its id, this one included
    children: Sequence[WorkflowInstance]
    messages: Sequence[Mapping[str, Any]]
    updates: Sequence[WorkflowUpdate]
    cut: Sequence[str]
    activity_inputs: Mapping[int, str]  # by command; empty unless payloads are wanted
    events: Sequence[Mapping[str, Any]] | None  # None unless the history is wanted
    with_payloads: bool

    @property
    def history_length(self) -> int:
        open_row = self.live.open_row
        return self.instance.history_length if open_row is None else open_row.history_length

    @property
    def owner(self) -> str | None:
        """The worker that holds the instance."""
        owner_id = self.live.open_row.owner_id if self.live.open_row else None
        return None if owner_id is None else self.workers.name(owner_id)


def load(instance: WorkflowInstance, *, with_history: bool, with_payloads: bool) -> Details:
    alias, now, limit = instance._state.db, timezone.now(), None if with_payloads else 0
    live = queries.load_live_rows(instance, limit)
    children, more_children = queries.first_rows(_children(instance))
    updates, more_updates = queries.first_rows(
        WorkflowUpdate.objects.using(alias).filter(chain_id=instance.chain).order_by("created_at", "pk")
    )
    messages, more_messages = live.messages, live.more_messages
    if not queries.is_open(instance):
        messages, more_messages = queries.first_rows(_undelivered(instance, limit))
    cut = {
        "activities": live.more_activities, "timers": live.more_timers, "children": more_children,
        "messages": more_messages, "updates": more_updates,
    }  # fmt: skip
    executions = WorkflowInstance.objects.using(alias).filter(instance_key=instance.instance_key).count()
    inputs = ActivityTask.objects.using(alias).filter(instance_id=instance.pk).values_list("command", "input")
    return Details(
        instance=instance,
        now=now,
        live=live,
        workers=queries.load_workers(alias, live.owner_ids, now),
        parent=queries.load_relatives(instance).get(instance.parent_id or 0),
        subject=_subject(instance),
        executions=executions,
        children=children,
        messages=messages,
        updates=updates,
        cut=[name for name, is_cut in cut.items() if is_cut],
        activity_inputs=dict(inputs) if with_payloads else {},
        events=list(queries.history(instance, limit).order_by("sequence")) if with_history else None,
        with_payloads=with_payloads,
    )


def _children(instance: WorkflowInstance) -> QuerySet[WorkflowInstance]:
    return WorkflowInstance.objects.using(instance._state.db).filter(parent_id=instance.pk).order_by("id")


def _undelivered(instance: WorkflowInstance, payload_limit: int | None) -> QuerySet[Any, dict[str, Any]]:
    rows = queries.unread_messages(instance, payload_limit)
    # Behind an earlier execution of a chain that goes on: they will be delivered.
    if OpenInstance.objects.using(instance._state.db).filter(chain_id=instance.chain).exists():
        return rows.none()
    return rows.filter(type="SignalReceived")


def _subject(instance: WorkflowInstance) -> str:
    if instance.subject_type_id is None:
        return ""
    content_types = ContentType.objects.db_manager(instance._state.db)
    found = content_types.filter(pk=instance.subject_type_id).first()
    label = f"{found.app_label}.{found.model}" if found is not None else "?"
    return f"{label}:{instance.subject_pk}"


# As a document


def document(details: Details) -> dict[str, Any]:
    instance = details.instance
    found = {
        **summary(instance),
        "attempt": instance.attempt,
        "history_length": details.history_length,
        "owner": details.owner,
        "next_try_at": details.live.next_try,
        "parent": details.parent.instance_id if details.parent is not None else None,
        "subject": details.subject or None,
        "executions": details.executions,
        "attributes": instance.attributes,
        "input": call_of(instance.input),
        "result": value_of(instance.result),
        "failure": stored(instance.failure),
        "activities": [_activity(task, details) for task in details.live.activities],
        "timers": [{"command": timer.command, "fire_at": timer.fire_at} for timer in details.live.timers],
        "children": [summary(child) for child in details.children],
        "messages": [_message(row, details) for row in details.messages],
        "updates": [_update(row, details) for row in details.updates],
        "cut": details.cut,
    }
    if details.events is not None:
        found["history"] = _history(details.events, details.with_payloads)
    return found


def _activity(task: ActivityTask, details: Details) -> dict[str, Any]:
    found = {
        "command": task.command,
        "activity": task.name,
        "queue": task.queue,
        "attempt": task.attempt,
        "state": _state(task, details.now),
        "worker": None if task.owner_id is None else details.workers.name(task.owner_id),
        "scheduled_at": task.scheduled_at,
        "available_at": task.available_at,
        "expires_at": task.expires_at,
        "last_failure": stored(task.last_failure),
        "heartbeat": value_of(task.heartbeat),
        "heartbeat_at": task.heartbeat_at,
    }
    if details.with_payloads:
        found["input"] = call_of(details.activity_inputs.get(task.command, "null"))
    return found


def _state(task: ActivityTask, now: datetime) -> str:
    if task.available_at is None:
        return "deferred" if task.owner_id is None else "running"
    return "waiting" if task.available_at <= now else "scheduled"


def _message(row: Mapping[str, Any], details: Details) -> dict[str, Any]:
    command, name = event_subject(row["head"])
    found = {
        "type": row["type"],
        "name": name or None,
        "command": command,
        "created_at": row["created_at"],
        "parked": row["queue"] is None,
    }
    return {**found, "data": stored(row["data_text"])} if details.with_payloads else found


def _update(row: WorkflowUpdate, details: Details) -> dict[str, Any]:
    found = {
        "update_id": row.update_id,
        "name": row.name,
        "status": row.status,
        "created_at": row.created_at,
        "answered_at": row.answered_at,
        "failure": stored(row.failure),
    }
    if details.with_payloads:
        found |= {"input": call_of(row.input), "result": value_of(row.result)}
    return found


def _history(events: Sequence[Mapping[str, Any]], with_payloads: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"sequence": event.sequence, "type": event.type, "time": event.time, "command": event.command,
         "name": event.name or None}
        for event in display_events({**row, "data_text": None} for row in events)
    ]  # fmt: skip
    if with_payloads:
        for event, row in zip(found, events, strict=True):
            event["data"] = stored(row["data_text"])
    return found

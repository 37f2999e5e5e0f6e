"""What the page of one instance shows, gathered in a fixed number of queries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils import timezone

from django_workflows.admin.facts import instance_facts
from django_workflows.inspection import queries
from django_workflows.inspection.presentation import (
    PAYLOAD_LIMIT,
    display_activity,
    display_attributes,
    display_events,
    display_failure,
    display_message,
    display_payload,
    display_timer,
    display_update,
)
from django_workflows.models import InstanceStatus, WorkflowInstance

EVENTS_PER_PAGE = 100


def instance_page(model_admin: Any, request: HttpRequest, instance: Any) -> dict[str, Any]:
    """Return the template context of the page."""
    can_view_payload = model_admin.has_view_payload_permission(request)
    payload_limit = PAYLOAD_LIMIT if can_view_payload else 0
    now = timezone.now()
    live = queries.load_live_rows(instance, payload_limit)
    workers = queries.load_workers(instance._state.db, live.owner_ids, now)
    return {
        "can_view_payload": can_view_payload,
        "is_open": queries.is_open(instance),
        "is_blocked": instance.status == InstanceStatus.BLOCKED,
        "facts": instance_facts(model_admin, request, instance, live, workers, now),
        "attributes": display_attributes(instance.attributes),
        **payload_panels(instance, payload_limit),
        **live_panels(live, workers, now),
        **updates_panel(instance, payload_limit),
        **history_panel(request, instance, payload_limit),
    }


def payload_panels(instance: WorkflowInstance, payload_limit: int) -> dict[str, Any]:
    row = queries.load_payloads(instance, payload_limit)
    return {
        "input_length": row["input_length"],
        "input": display_payload(row.get("input_text"), row["input_length"]),
        "result_length": row["result_length"],
        "result": display_payload(row.get("result_text"), row["result_length"]),
        "has_failure": row["failure"] is not None,
        "failures": display_failure(row["failure"]) if row["failure"] is not None else None,
        "failure_length": len(row["failure"] or ""),
        "failure_text": display_payload(row["failure"]) if payload_limit else None,
    }


def live_panels(live: queries.LiveRows, workers: queries.Workers, now: datetime) -> dict[str, Any]:
    return {
        "activities": [display_activity(task, workers.activity_queues, workers.name, now) for task in live.activities],
        "more_activities": live.more_activities,
        "timers": [display_timer(timer, now) for timer in live.timers],
        "more_timers": live.more_timers,
        "unread": [display_message(row) for row in live.messages],
        "more_messages": live.more_messages,
        "row_limit": queries.ROW_LIMIT,
    }


def updates_panel(instance: WorkflowInstance, payload_limit: int) -> dict[str, Any]:
    updates, more_updates = queries.load_updates(instance, payload_limit)
    return {"updates": [display_update(row) for row in updates], "more_updates": more_updates}


def history_panel(request: HttpRequest, instance: WorkflowInstance, payload_limit: int) -> dict[str, Any]:
    newest_first = request.GET.get("order") == "newest"
    events = queries.history(instance, payload_limit).order_by("-sequence" if newest_first else "sequence")
    paginator = Paginator(events, EVENTS_PER_PAGE)
    page = paginator.get_page(request.GET.get("page"))
    return {
        "newest_first": newest_first,
        "page": page,
        "page_range": list(paginator.get_elided_page_range(page.number)),
        "page_gap": paginator.ELLIPSIS,
        "events": display_events(page.object_list),
    }

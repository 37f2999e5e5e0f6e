"""The facts at the top of an instance's page: label and value, the value escaped."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.utils import quote
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from django_workflows.admin.markup import link, status_badge, time_tag
from django_workflows.inspection import queries
from django_workflows.inspection.presentation import format_duration, relative_time
from django_workflows.models import WorkflowInstance

Fact = tuple[str, str]


def instance_facts(
    model_admin: Any,
    request: HttpRequest,
    instance: Any,
    live: queries.LiveRows,
    workers: queries.Workers,
    now: datetime,
) -> list[Fact]:
    """Return what is worth saying about this instance; what does not apply is left out."""
    site = model_admin.admin_site.name
    facts = [
        *_identity(site, instance),
        *_times(instance, live, now),
        *_ownership(instance.queue, live, workers),
        (_("Subject"), _subject(model_admin.admin_site, request, instance)),
        *_relatives(site, instance),
    ]
    return [(label, value) for label, value in facts if value]


def _identity(site: str, instance: Any) -> list[Fact]:
    return [
        (_("Status"), status_badge(instance.status)),
        (_("Instance ID"), instance.instance_id),
        (_("Execution ID"), instance.execution_id),
        (_("Workflow"), link(_list_url(site, workflow=instance.name), instance.name)),
        (_("Version"), instance.version),
        (_("Queue"), instance.queue),
        (_("Priority"), str(instance.priority or "")),
    ]


def _times(instance: Any, live: queries.LiveRows, now: datetime) -> list[Fact]:
    closed_at = instance.closed_at
    return [
        (_("Created"), time_tag(instance.created_at, relative_time(instance.created_at, now))),
        (_("Closed"), time_tag(closed_at, relative_time(closed_at, now)) if closed_at else ""),
        (_("Duration"), format_duration((closed_at or now) - instance.created_at)),
        (_("History length"), str(instance.events)),
        (_("Next try"), time_tag(live.next_try, relative_time(live.next_try, now)) if live.next_try else ""),
    ]


def _ownership(queue: str, live: queries.LiveRows, workers: queries.Workers) -> list[Fact]:
    row = live.open_row
    if row is None:
        return []
    if row.owner_id is not None:
        holder = workers.name(row.owner_id)
    else:
        holder = "" if queue in workers.queues else _("nobody: no worker serves its queue")
    return [
        (_("Held by"), holder),
        (_("Crashed claims"), str(row.crashes or "")),
        (_("Failed steps in a row"), str(row.blocks or "")),
    ]


def _subject(admin_site: Any, request: HttpRequest, instance: Any) -> str:
    if instance.subject_type_id is None:
        return ""
    try:
        content_type = ContentType.objects.db_manager(instance._state.db).get_for_id(instance.subject_type_id)
    except ContentType.DoesNotExist:
        return str(instance.subject_pk)
    text = f"{content_type.name} {instance.subject_pk}"
    model = content_type.model_class()
    if model is None or not admin_site.is_registered(model):
        return text
    if not admin_site.get_model_admin(model).has_view_permission(request):
        return text
    try:
        view = f"{admin_site.name}:{content_type.app_label}_{content_type.model}_change"
        return link(reverse(view, args=[quote(instance.subject_pk)]), text)
    except NoReverseMatch:
        return text


def _relatives(site: str, instance: Any) -> list[Fact]:
    known = queries.load_relatives(instance)

    def relative(pk: int | None) -> str:
        if pk is None or pk == instance.pk:
            return ""
        return _instance_link(site, known[pk]) if pk in known else _("%(id)s (removed)") % {"id": pk}

    executions = _list_url(site, instance_key=instance.instance_key)
    children = _list_url(site, parent_id=instance.pk) if queries.has_children(instance) else ""
    return [
        (_("Parent"), relative(instance.parent_id)),
        (_("Root"), relative(instance.root_id) if instance.root_id != instance.parent_id else ""),
        (_("Children"), link(children, _("List the child workflows")) if children else ""),
        (_("First execution"), relative(instance.chain_id)),
        (_("Executions"), link(executions, _("List all with this instance ID"))),
    ]


def _instance_link(site: str, instance: WorkflowInstance) -> str:
    url = reverse(f"{site}:django_workflows_workflowinstance_change", args=[instance.pk])
    return link(url, str(instance))


def _list_url(site: str, **lookups: object) -> str:
    return reverse(f"{site}:django_workflows_workflowinstance_changelist") + "?" + urlencode(lookups)

"""The list of workflow instances, and where the page of one of them hooks into the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import Media
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_workflows.admin.filters import WorkflowNameFilter
from django_workflows.admin.instance_page import instance_page
from django_workflows.admin.markup import status_badge, time_tag
from django_workflows.admin.readonly import STYLESHEET, ReadOnlyAdmin
from django_workflows.inspection import queries
from django_workflows.inspection.presentation import format_duration
from django_workflows.models import WorkflowInstance

PAYLOAD_COLUMNS = ["input", "result", "failure"]


class WorkflowInstanceAdmin(ReadOnlyAdmin):
    """Instances, newest first; payloads need the permission `view_payload` of their own."""

    list_display = ["instance_id", "status_badge", "name", "queue", "created", "duration", "history_events"]
    list_filter = ["status", WorkflowNameFilter]
    search_fields = ["instance_id"]  # what it finds is get_search_results' decision
    search_help_text = _(
        "A whole instance ID or execution ID, else the beginning of an instance ID; end it with * for all."
    )
    ordering = ["-id"]
    sortable_by = ["created"]
    instance_template = "admin/django_workflows/workflowinstance/instance.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[WorkflowInstance]:
        rows = super().get_queryset(request).defer(*PAYLOAD_COLUMNS, "attributes")
        return queries.with_history_length(rows)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return queries.search_instances(queryset, search_term) if search_term else queryset, False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        # ?result__gt=... would let somebody guess a payload who may not see it; SQLite fails at keys beyond 64 bits.
        hidden = (*PAYLOAD_COLUMNS, "subject_type", "subject_type_id")
        return lookup.split("__")[0] not in hidden and super().lookup_allowed(lookup, value, request)

    def has_view_payload_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.view_payload")

    @admin.display(description=_("status"))
    def status_badge(self, instance: WorkflowInstance) -> SafeString:
        return status_badge(instance.status)

    @admin.display(description=_("created"), ordering="id")
    def created(self, instance: WorkflowInstance) -> SafeString:
        return time_tag(instance.created_at)

    @admin.display(description=_("duration"))
    def duration(self, instance: WorkflowInstance) -> str:
        return format_duration((instance.closed_at or timezone.now()) - instance.created_at)

    @admin.display(description=_("events"))
    def history_events(self, instance: Any) -> int:
        return int(instance.events)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one instance; there is nothing to post."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        instance = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, instance):
            raise PermissionDenied
        if instance is None:
            return super().change_view(request, object_id)  # which says so and goes back to the index
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": instance,
            "title": str(instance),
            "has_view_permission": True,
            "media": Media(css={"all": [STYLESHEET]}),
            **instance_page(self, request, instance),
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.instance_template, context)

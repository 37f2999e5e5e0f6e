"""The list of worker processes."""

from __future__ import annotations

from django.contrib import admin
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_workflows.admin.markup import time_tag, worker_badge
from django_workflows.admin.readonly import ReadOnlyAdmin
from django_workflows.inspection.presentation import display_queues, relative_time
from django_workflows.models import Worker


class WorkerAdmin(ReadOnlyAdmin):
    """Worker processes, alive ones first."""

    list_display = ["process", "state_badge", "queue_names", "slots", "version", "lease", "started"]
    list_display_links = None
    list_filter = ["state"]
    ordering = ["state", "-id"]
    sortable_by = ["started"]

    @admin.display(description=_("worker"))
    def process(self, worker: Worker) -> str:
        return str(worker)

    @admin.display(description=_("state"))
    def state_badge(self, worker: Worker) -> SafeString:
        return worker_badge(worker.state, is_overdue=worker.lease_until < timezone.now())

    @admin.display(description=_("queues"))
    def queue_names(self, worker: Worker) -> str:
        return display_queues(worker.queues)

    @admin.display(description=_("lease ends"))
    def lease(self, worker: Worker) -> str:
        return relative_time(worker.lease_until, timezone.now())

    @admin.display(description=_("started"), ordering="id")
    def started(self, worker: Worker) -> SafeString:
        return time_tag(worker.started_at)

"""The admin pages; imported by the admin's autodiscovery, so a project without the admin never loads them."""

from django.contrib import admin

from django_workflows.admin.instances import WorkflowInstanceAdmin
from django_workflows.admin.workers import WorkerAdmin
from django_workflows.models import Worker, WorkflowInstance

__all__ = ["WorkerAdmin", "WorkflowInstanceAdmin"]

admin.site.register(WorkflowInstance, WorkflowInstanceAdmin)
admin.site.register(Worker, WorkerAdmin)

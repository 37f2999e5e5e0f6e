"""Filters of the instance list that never read the whole table for their choices."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_workflows.registry import workflows


class WorkflowNameFilter(admin.SimpleListFilter):
    """The workflows that this process knows, and whichever name the address asks for."""

    title = _("workflow")
    parameter_name = "workflow"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = {definition.name for definition in workflows}
        if asked := self.value():
            names.add(asked)
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = self.value()
        return queryset if name is None else queryset.filter(name=name)

"""What the admin pages of this app share: they show rows and change none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from django_workflows.conf import get_settings

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

STYLESHEET = "django_workflows/admin.css"
COUNT_LIMIT = 10_000
# What addresses of lists may ask of columns; of others databases refuse some values, such as bad regular expressions.
LOOKUPS = frozenset({"", "exact", "isnull", "gt", "gte", "lt", "lte"})


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that stops counting at COUNT_LIMIT: no list page reads a whole table."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[:COUNT_LIMIT].count())


class ReadOnlyAdmin(ModelAdmin):
    """Rows to look at; who may look is the model's view permission."""

    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": [STYLESHEET]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(get_settings().database)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        is_safe = lookup.partition("__")[2] in LOOKUPS and "\0" not in value  # which PostgreSQL refuses
        return is_safe and super().lookup_allowed(lookup, value, request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"title": capfirst(self.opts.verbose_name_plural)} | (extra_context or {})
        response = super().changelist_view(request, context)
        shown = getattr(response, "context_data", None) or {}
        if "cl" in shown and shown["cl"].result_count >= COUNT_LIMIT:
            shown["subtitle"] = _("The first %(count)s that match") % {"count": f"{COUNT_LIMIT:,}"}
        return response

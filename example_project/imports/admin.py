"""Airports and imports in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from .models import Airport, ImportJob

if TYPE_CHECKING:
    AirportAdminBase = admin.ModelAdmin[Airport]
    ImportJobAdminBase = admin.ModelAdmin[ImportJob]
else:
    AirportAdminBase = ImportJobAdminBase = admin.ModelAdmin


@admin.register(Airport)
class AirportAdmin(AirportAdminBase):
    list_display = ["iata", "name", "city", "state", "country", "published"]
    list_filter = ["published", "state"]
    search_fields = ["=iata", "name", "city"]


@admin.register(ImportJob)
class ImportJobAdmin(ImportJobAdminBase):
    list_display = ["id", "file", "status", "done", "created_at"]
    list_filter = ["status"]
    readonly_fields = ["file", "pause", "status", "done", "error", "report", "created_at"]  # its workflow writes these

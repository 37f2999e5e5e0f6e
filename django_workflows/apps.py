"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from . import registry
from .authoring.runtime import bind_client
from .conf import get_settings


class DjangoWorkflowsConfig(AppConfig):
    """Binds the client and finds each app's `workflows` module."""

    name = "django_workflows"
    verbose_name = _("Workflows")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import client

        bind_client(client.ModelClient())
        registry.set_atomic_database(get_settings().database)
        autodiscover_modules("workflows")

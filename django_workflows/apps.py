"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from . import model_objects, payloads, registry
from .authoring import propagation
from .authoring.runtime import bind_client
from .conf import SETTING, read_settings


class DjangoWorkflowsConfig(AppConfig):
    """Binds the client, the codec and the checks, makes model objects known, finds each app's `workflows` module."""

    name = "django_workflows"
    verbose_name = _("Workflows")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, client, propagators

        bind_client(client.ModelClient())
        checks.register_all()
        # Problems of the settings are for the checks to tell, all at once and without a traceback.
        settings = read_settings().settings
        registry.set_atomic_database(settings.database)
        propagation.use_propagators(propagators.load(settings.propagators))
        model_objects.register()
        _use_codec(setting=SETTING)
        setting_changed.connect(_use_codec, dispatch_uid="django_workflows.codec")
        autodiscover_modules("workflows")


def _use_codec(*, setting: str, **kwargs: object) -> None:
    if setting == SETTING:
        payloads.use_codec(read_settings().settings.codec)

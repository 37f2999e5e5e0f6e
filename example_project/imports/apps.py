"""The app's configuration."""

from django.apps import AppConfig


class ImportsConfig(AppConfig):
    """The airport import; its `workflows` module is found by django_workflows."""

    name = "example_project.imports"
    default_auto_field = "django.db.models.BigAutoField"

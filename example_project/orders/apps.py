"""The app's configuration."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """The shop's orders; its `workflows` module is found by django_workflows."""

    name = "example_project.orders"
    default_auto_field = "django.db.models.BigAutoField"

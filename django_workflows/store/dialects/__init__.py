"""The hot statements in each vendor's SQL; the rest of the store goes through the ORM."""

from __future__ import annotations

from importlib import import_module

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import BaseDatabaseWrapper

from .base import Dialect

_MODULES = {"sqlite": "sqlite", "postgresql": "postgresql", "mysql": "mysql"}


def dialect_of(connection: BaseDatabaseWrapper) -> Dialect:
    """Return the dialect of a connection's vendor; raises ImproperlyConfigured for an unsupported one."""
    if connection.vendor not in _MODULES:
        raise ImproperlyConfigured(
            f"django_workflows runs on SQLite, PostgreSQL, MySQL and MariaDB; the database {connection.alias!r} "
            f"is {connection.display_name}"
        )
    module = import_module(f".{_MODULES[connection.vendor]}", __name__)
    dialect: Dialect = module.VendorDialect(connection)
    return dialect

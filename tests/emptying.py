"""Emptying the tables after a test that committed, quicker than Django's flush.

Flush truncates every table, which makes and removes files on PostgreSQL and MariaDB, and then writes all content types
and permissions anew. Most tests leave a few rows in a few tables, so deleting them takes a tenth of the time.
"""

from __future__ import annotations

from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase

_KEPT = {"django_migrations", "django_content_type", "auth_permission"}
_MANY = 1000  # rows that leave so much behind on PostgreSQL that the next tests would walk over it


def empty_tables(case: TransactionTestCase) -> None:
    """Do what TransactionTestCase does at the end of a test."""
    for alias in case._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
        connection: Any = connections[alias]
        connection.run_on_commit = []
        large = _delete_all(connection)
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                for table in large:
                    cursor.execute(f"VACUUM {connection.ops.quote_name(table)}")


def _delete_all(connection: BaseDatabaseWrapper) -> list[str]:
    """Delete all rows but those that migrations wrote; return the tables that had many."""
    large = []
    atomic, unchecked = transaction.atomic(using=connection.alias), connection.constraint_checks_disabled()
    with atomic, unchecked, connection.cursor() as cursor:
        for table in _tables(connection):
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")
            if cursor.rowcount > _MANY:
                large.append(table)
    return large


def _tables(connection: BaseDatabaseWrapper) -> list[str]:
    found: list[str] | None = getattr(connection, "_tables_to_empty", None)
    if found is None:
        names = connection.introspection.django_table_names(only_existing=True, include_views=False)
        found = connection._tables_to_empty = sorted(set(names) - _KEPT)  # type: ignore[attr-defined]
    return found

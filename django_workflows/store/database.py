"""The database of the workflow tables, seen from one thread."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.models.functions import Now

from django_workflows.conf import get_settings

from .dialects import dialect_of
from .dialects.base import Dialect


class DatabaseNow(Now):
    """The database's clock inside a statement, as the statement's time and in UTC."""

    def as_mysql(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        # Django's own is in the time zone of the session, which is the server's on an application's connection.
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra_context)


class Database:
    """One alias with its dialect; the connection is the calling thread's own, as everywhere in Django."""

    def __init__(self, alias: str | None = None) -> None:
        self.alias = alias or get_settings().database
        self._prepared: Any = None

    @property
    def connection(self) -> BaseDatabaseWrapper:
        return connections[self.alias]

    @property
    def dialect(self) -> Dialect:
        connection = self.connection
        dialect: Dialect | None = getattr(connection, "_workflows_dialect", None)
        if dialect is None:
            dialect = connection._workflows_dialect = dialect_of(connection)  # type: ignore[attr-defined]
        return dialect

    def cursor(self) -> CursorWrapper:
        return self.connection.cursor()

    def atomic(self) -> AbstractContextManager[None]:
        """Return a transaction, joined to an outer one without a savepoint."""
        return transaction.atomic(using=self.alias, savepoint=False)

    def now(self) -> datetime:
        """Return the database's clock."""
        with self.cursor() as cursor:
            return self.dialect.now(cursor)

    def prepare_worker_session(self, lease_seconds: float) -> None:
        """Set up this thread's connection for turns, again after each reconnect."""
        connection = self.connection
        connection.ensure_connection()
        if self._prepared is not connection.connection:
            with connection.cursor() as cursor:
                self.dialect.prepare_session(cursor, lease_seconds)
            self._prepared = connection.connection

    def discard_connection(self) -> None:
        """Close this thread's connection; back in a pool it would carry a worker's session options to others."""
        connection: Any = self.connection
        if getattr(connection, "pool", None) and connection.connection is not None:
            connection.connection.close()
        connection.close()

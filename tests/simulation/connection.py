"""The one connection of all simulated processes: SQLite in memory, on virtual time, breaking where the world says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.db.backends.sqlite3.base import DatabaseWrapper

from django_workflows.models import HistoryEvent, InboxEvent, OpenInstance, WorkflowInstance
from django_workflows.store.dialects.base import Key, Lock
from django_workflows.store.dialects.sqlite import VendorDialect
from tests.testapp.models import Effect

from . import journal
from .world import EPOCH, World

_REFUSING = tuple(f"INSERT INTO {model._meta.db_table} " for model in (HistoryEvent, InboxEvent))
_WRITES = ("INSERT", "UPDATE", "DELETE")


class SimulatedDialect(VendorDialect):
    """SQLite's, where rows may be locked by somebody as they may be elsewhere."""

    def __init__(self, connection: Any, world: Callable[[], World]) -> None:
        super().__init__(connection)
        self._world = world

    def select(
        self, cursor: Any, model: Any, columns: Sequence[str], key: Sequence[str], keys: Sequence[Key], *,
        where: str = "", lock: Lock = "",
    ) -> list[Any]:  # fmt: skip
        found = super().select(cursor, model, columns, key, keys, where=where, lock=lock)
        # What an application can hold for long: open rows by a termination, instances by a foreign key of its own.
        if lock == "skip" and model in (OpenInstance, WorkflowInstance):
            return [row for row in found if not self._world().is_locked_by_somebody()]
        return found

    def is_lock_timeout(self, error: Exception) -> bool:
        return "lock timeout" in str(error)

    def is_deadlock(self, error: Exception) -> bool:
        return "deadlock" in str(error)


class SimulatedConnection(DatabaseWrapper):
    """Tells the world of each border of a transaction, and breaks there when told to."""

    def __init__(self) -> None:
        options = {"transaction_mode": "IMMEDIATE"}
        engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": options}
        super().__init__({**connections.settings["default"], **engine}, "default")
        self.world: World | None = None
        self._transactions = 0
        self._workflows_dialect = SimulatedDialect(self, self._the_world)
        self.execute_wrappers.append(self._around_statement)
        self._models = [*apps.get_app_config("django_workflows").get_models(), Effect, ContentType]

    def begin_anew(self, world: World) -> None:
        """Empty the tables, and count their ids from 1 again."""
        self.world = None
        if self.connection is None:
            self._create_tables()
        for model in self._models:
            self.raw(f"DELETE FROM {model._meta.db_table}")
        self.raw("DELETE FROM sqlite_sequence")
        self.raw(f"DELETE FROM {journal.TABLE}")
        self.world = world

    def _create_tables(self) -> None:
        with self.schema_editor() as editor:
            for model in self._models:
                editor.create_model(model)
        for statement in journal.SCHEMA:
            self.raw(statement)

    def raw(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run a statement unseen: no border of a transaction, no fault."""
        self.ensure_connection()
        assert self.connection is not None
        return list(self.connection.execute(sql, parameters).fetchall())

    def reserve_ids(self, table: str, highest: int) -> None:
        """Have a table hand out no id up to this one, as a sequence does whose transaction has not ended."""
        if not self.raw("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ? RETURNING 1", [highest, table]):
            self.raw("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", [table, highest])

    def get_new_connection(self, conn_params: Any) -> Any:
        connection = super().get_new_connection(conn_params)
        connection.create_function("transaction_number", 0, lambda: self._transactions)
        connection.create_function("strftime", 2, self._strftime)
        connection.create_function("julianday", 1, lambda moment: (EPOCH + self._the_world().now) / 86400 + 2440587.5)
        return connection

    def _strftime(self, template: str, moment: str) -> str:
        return datetime.fromtimestamp(EPOCH + self._the_world().now, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

    def _the_world(self) -> World:
        assert self.world is not None
        return self.world

    # Borders of transactions

    def _start_transaction_under_autocommit(self) -> None:
        if self.world is not None:
            self.world.before_transaction()
            # Those who acted meanwhile used this connection too.
            self.commit_on_exit, self.needs_rollback = True, False
            self.world.transaction_begins()
        self._transactions += 1
        super()._start_transaction_under_autocommit()

    def _commit(self) -> Any:
        if self.world is None:
            return super()._commit()
        fault = self.world.fault_at_commit()
        if fault is not None and not fault.landed:
            self._rollback()  # a crash would make Python's driver commit what is left open
            self.world.strike(fault)
        self.world.before_landing()
        super()._commit()
        self.world.transaction_landed()
        if fault is not None:
            self.world.strike(fault)
        return None

    def _around_statement(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """Treat a statement outside of transactions as one of its own."""
        if self.world is not None and self.in_atomic_block:
            self.world.during_transaction()
            if sql.startswith(_REFUSING):
                self.world.refuse_some(params if many else [params])
        if self.world is None or self.in_atomic_block or sql.startswith("BEGIN"):
            return execute(sql, params, many, context)
        self.world.before_transaction()
        if not sql.startswith(_WRITES):
            return execute(sql, params, many, context)
        self._transactions += 1
        fault = self.world.fault_at_commit()
        if fault is not None and not fault.landed:
            self.world.strike(fault)
        result = execute(sql, params, many, context)
        if fault is not None:
            self.world.strike(fault)
        return result

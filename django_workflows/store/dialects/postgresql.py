"""PostgreSQL: rows travel as one JSON parameter, keys as array literals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import msgspec
from django.db import models
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from django_workflows.models import KeyField

from .base import Dialect, Key, Lock, Row, as_tuples, columns_of, documents

_ON_LOCKED = {"skip": "SKIP LOCKED", "wait": ""}
_encode = msgspec.json.Encoder().encode


def _array(values: Sequence[Any]) -> str:
    """Return the literal of an array of numbers, booleans or ASCII keys without quotes or braces."""
    return "{" + ",".join("NULL" if value is None else str(value) for value in values) + "}"


# Fields whose values are written into an array literal as they are.
_PLAIN = (models.IntegerField, models.BooleanField, KeyField)


class VendorDialect(Dialect):
    # NO KEY: an application may hold a foreign key to an instance.
    row_lock = "FOR NO KEY UPDATE"
    clock_sql = "SELECT extract(epoch FROM clock_timestamp())"
    now_sql = "clock_timestamp()"

    def prepare_session(self, cursor: CursorWrapper, lease_seconds: float) -> None:
        # The driver would begin each transaction with the level of OPTIONS, whatever the session says.
        self.connection.connection.isolation_level = None
        cursor.execute(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED; SET lock_timeout = '1s'; "
            f"SET idle_in_transaction_session_timeout = '{int(lease_seconds * 1000)}ms'"
        )

    def to_json(self, text: str) -> Any:
        return msgspec.Raw(text.encode())

    @contextmanager
    def impatient_transaction(self) -> Iterator[CursorWrapper]:
        with super().impatient_transaction() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '5ms'")
            yield cursor

    def is_lock_timeout(self, error: Exception) -> bool:
        return getattr(error.__cause__, "sqlstate", None) == "55P03"

    def is_deadlock(self, error: Exception) -> bool:
        return getattr(error.__cause__, "sqlstate", None) == "40P01"

    @contextmanager
    def turn(self) -> Iterator[CursorWrapper]:
        if self.connection.settings_dict["OPTIONS"].get("server_side_binding"):
            with super().turn() as cursor:  # the protocol takes one statement at a time then
                yield cursor
            return
        joins = self.connection.in_atomic_block
        with super().turn() as cursor, self.postponing() as postponed:
            if not joins:
                self.connection.connection.autocommit = True  # or the driver would send a BEGIN of its own
                postponed.add("BEGIN")
            yield cursor
            if not joins and postponed:
                postponed.add("COMMIT")  # the driver sees that there is nothing left to commit

    def insert(self, cursor: CursorWrapper, model: type[Model], columns: Sequence[str], rows: Sequence[Row]) -> None:
        # 3 microseconds a row from one JSON parameter, 20 from VALUES lists (measured with batches of 200).
        names = tuple(columns)
        sql = _insert_sql(model, names, self._types(model, names))
        for document in documents(_encoder(names), rows):
            self.later(cursor, sql, [document])

    def _delete(self, model: type[Model], key: Sequence[str], keys: Sequence[Key]) -> tuple[str, list[str]]:
        source, condition, parameters = self._keys(model, key, keys)
        return f"DELETE FROM {model._meta.db_table} t USING {source} WHERE {condition}", parameters

    def update(
        self, cursor: CursorWrapper, model: type[Model], key: Sequence[str], columns: Sequence[str], rows: Sequence[Row]
    ) -> None:
        names = (*key, *columns)
        changes = ", ".join(f"{column} = j.{column}" for column in columns)
        condition = " AND ".join(f"t.{column} = j.{column}" for column in key)
        for source, parameters in self._rows(model, names, rows):
            self.later(
                cursor, f"UPDATE {model._meta.db_table} t SET {changes} FROM {source} WHERE {condition}", parameters
            )

    def _rows(self, model: type[Model], names: tuple[str, ...], rows: Sequence[Row]) -> Iterator[tuple[str, list[str]]]:
        """Yield rows as table functions `j`, more than one where they are large.

        Arrays where the values allow it: PostgreSQL sees their length, while it guesses 100 rows for a JSON document
        and may scan a whole small table for one row.
        """
        types = self._types(model, names)
        if _are_plain(model, names):
            arrays = ", ".join(f"%s::{type}[]" for type in types)
            yield f"unnest({arrays}) AS j({', '.join(names)})", [_array(column) for column in zip(*rows, strict=True)]
            return
        for document in documents(_encoder(names), rows):
            yield f"json_to_recordset(%s::json) AS j({_defined(names, types)})", [document]

    def select(
        self,
        cursor: CursorWrapper,
        model: type[Model],
        columns: Sequence[str],
        key: Sequence[str],
        keys: Sequence[Key],
        *,
        where: str = "",
        lock: Lock = "",
    ) -> list[Any]:
        chosen = ", ".join(f"t.{column}" for column in columns)
        source, condition, parameters = self._keys(model, key, keys)
        locking = f"{self.row_lock} OF t {_ON_LOCKED[lock]}" if lock else ""
        cursor.execute(
            f"SELECT {chosen} FROM {model._meta.db_table} t, {source} WHERE {condition} {where} {locking}", parameters
        )
        return list(cursor.fetchall())

    def _keys(self, model: type[Model], key: Sequence[str], keys: Sequence[Key]) -> tuple[str, str, list[str]]:
        # Sorted: the order in which rows are locked.
        [(source, parameters)] = self._rows(model, tuple(key), sorted(as_tuples(keys)))
        return source, " AND ".join(f"t.{column} = j.{column}" for column in key), parameters

    @cached_property
    def _types(self) -> Callable[[type[Model], tuple[str, ...]], tuple[str, ...]]:
        """Return the types of columns; kept here, not by the module, which would keep the connection of each thread."""

        @cache
        def types(model: type[Model], names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(str(field.rel_db_type(self.connection)) for field in columns_of(model, names))

        return types


@cache
def _are_plain(model: type[Model], names: tuple[str, ...]) -> bool:
    return all(isinstance(field, _PLAIN) for field in columns_of(model, names))


@cache
def _encoder(names: tuple[str, ...]) -> Callable[[Sequence[Row]], bytes]:
    return lambda rows: _encode([dict(zip(names, row, strict=True)) for row in rows])


@cache
def _defined(names: tuple[str, ...], types: tuple[str, ...]) -> str:
    """Return the columns of a document with their types."""
    return ", ".join(f"{name} {type}" for name, type in zip(names, types, strict=True))


@cache
def _insert_sql(model: type[Model], names: tuple[str, ...], types: tuple[str, ...]) -> str:
    columns = ", ".join(names)
    source = f"json_to_recordset(%s::json) AS j({_defined(names, types)})"
    return f"INSERT INTO {model._meta.db_table} ({columns}) SELECT {columns} FROM {source}"

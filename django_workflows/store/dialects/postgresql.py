"""PostgreSQL: rows travel as one JSON parameter, keys as array literals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import msgspec
from django.db import models
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from django_workflows.models import KeyField

from .base import Dialect, Key, Lock, Row, Writer, as_tuples, columns_of

_ON_LOCKED = {"skip": "SKIP LOCKED", "wait": ""}
_encode = msgspec.json.Encoder().encode


def _array(values: Sequence[Any]) -> str:
    """Return the literal of an array of numbers, booleans or ASCII keys without quotes or braces."""
    return "{" + ",".join("NULL" if value is None else str(value) for value in values) + "}"


# Fields whose values are written into an array literal as they are.
_PLAIN = (models.IntegerField, models.BooleanField, KeyField)


class _Script:
    """Gathers statements and sends them as one: one answer to wait for instead of one for each."""

    rowcount = -1

    def __init__(self, cursor: CursorWrapper) -> None:
        self._cursor = cursor
        self._statements: list[str] = []
        self._parameters: list[Any] = []

    def execute(self, sql: str, params: Sequence[Any] = ()) -> None:
        self._statements.append(sql)
        self._parameters += params

    def executemany(self, sql: str, param_list: Iterable[Sequence[Any]]) -> None:
        for params in param_list:
            self.execute(sql, params)

    def send(self) -> None:
        if self._statements:
            self._cursor.execute("; ".join(self._statements), self._parameters)


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
    def together(self, cursor: CursorWrapper) -> Iterator[Writer]:
        if self.connection.settings_dict["OPTIONS"].get("server_side_binding"):
            yield cursor  # the protocol takes one statement at a time then
            return
        script = _Script(cursor)
        yield script
        script.send()

    def insert(self, cursor: Writer, model: type[Model], columns: Sequence[str], rows: Sequence[Row]) -> None:
        # 3 microseconds a row from one JSON parameter, 20 from VALUES lists (measured with batches of 200).
        names = tuple(columns)
        document = _encode([dict(zip(names, row, strict=True)) for row in rows])
        cursor.execute(_insert_sql(model, names, self._types(model, names)), [document.decode()])

    def delete(
        self, cursor: Writer, model: type[Model], key: Sequence[str], keys: Sequence[Key], where: str = ""
    ) -> int:
        table = model._meta.db_table
        source, condition, parameters = self._keys(model, key, keys)
        cursor.execute(f"DELETE FROM {table} t USING {source} WHERE {condition} {where}", parameters)
        return int(cursor.rowcount)

    def update(
        self, cursor: Writer, model: type[Model], key: Sequence[str], columns: Sequence[str], rows: Sequence[Row]
    ) -> None:
        names = (*key, *columns)
        changes = ", ".join(f"{column} = j.{column}" for column in columns)
        condition = " AND ".join(f"t.{column} = j.{column}" for column in key)
        source, parameters = self._rows(model, names, rows)
        cursor.execute(f"UPDATE {model._meta.db_table} t SET {changes} FROM {source} WHERE {condition}", parameters)

    def _rows(self, model: type[Model], names: tuple[str, ...], rows: Sequence[Row]) -> tuple[str, list[str]]:
        """Return rows as a table function `j`.

        Arrays where the values allow it: PostgreSQL sees their length, while it guesses 100 rows for a JSON document
        and may scan a whole small table for one row.
        """
        fields = columns_of(model, names)
        if all(isinstance(field, _PLAIN) for field in fields):
            types = [str(field.rel_db_type(self.connection)) for field in fields]
            source = f"unnest({', '.join(f'%s::{type}[]' for type in types)}) AS j({', '.join(names)})"
            return source, [_array(column) for column in zip(*rows, strict=True)]
        document = _encode([dict(zip(names, row, strict=True)) for row in rows])
        return f"json_to_recordset(%s::json) AS j({self._types(model, names)})", [document.decode()]

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
        source, parameters = self._rows(model, tuple(key), sorted(as_tuples(keys)))
        return source, " AND ".join(f"t.{column} = j.{column}" for column in key), parameters

    def _types(self, model: type[Model], columns: tuple[str, ...]) -> str:
        return _type_list(model, columns, self.connection.alias, self)


@cache
def _type_list(model: type[Model], columns: tuple[str, ...], alias: str, dialect: VendorDialect) -> str:
    fields = columns_of(model, columns)
    return ", ".join(f"{field.column} {field.rel_db_type(dialect.connection)}" for field in fields)


@cache
def _insert_sql(model: type[Model], columns: tuple[str, ...], types: str) -> str:
    names = ", ".join(columns)
    return f"INSERT INTO {model._meta.db_table} ({names}) SELECT {names} FROM json_to_recordset(%s::json) AS j({types})"

"""MySQL and MariaDB: every hot write and locking read joins from its key list, so that only those rows are locked.

`WHERE id IN (...)`, and without FORCE INDEX the join too, may be planned as a scan of a small table, which waits for
rows that other transactions inserted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import msgspec
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from django_workflows.exceptions import PayloadTooLarge

from .base import Dialect, Key, Lock, Row, Writer, as_tuples, columns_of

_ON_LOCKED = {"skip": "SKIP LOCKED", "wait": ""}
_encode = msgspec.json.Encoder().encode
_LARGEST = 2_000_000  # characters of text in one statement
_ESCAPED = "\0\n\r\\'\"\x1a"  # what the driver writes as two characters
_SURELY_TAKEN = 1_000_000  # bytes, under any sensible max_allowed_packet
_OTHERWISE = 4096  # characters of a statement beside its largest value, at most


class VendorDialect(Dialect):
    clock_sql = "SELECT unix_timestamp(now(6))"
    now_sql = "utc_timestamp(6)"

    def prepare_session(self, cursor: CursorWrapper, lease_seconds: float) -> None:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
        cursor.execute("SET SESSION time_zone = '+00:00'")
        if self.connection.mysql_is_mariadb:  # type: ignore[attr-defined]
            cursor.execute(f"SET SESSION idle_transaction_timeout = {max(1, int(lease_seconds))}")
        else:
            cursor.execute(f"SET SESSION wait_timeout = {max(1, int(lease_seconds))}")

    @cached_property
    def _largest_packet(self) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            return int(cursor.fetchone()[0])

    def refuse_large(self, *texts: str) -> None:
        # The server closes the connection, and takes the caller's transaction with it.
        if 4 * sum(map(len, texts)) < _SURELY_TAKEN:
            return
        size = _OTHERWISE + sum(len(text.encode()) + sum(map(text.count, _ESCAPED)) for text in texts)
        if size > self._largest_packet:
            raise PayloadTooLarge(
                f"expected data that fits into the max_allowed_packet of {self._largest_packet:,} bytes, found a "
                f"statement of {size:,}; keep it in a model or a file and pass its key, or raise the limit"
            )

    def insert(self, cursor: Writer, model: type[Model], columns: Sequence[str], rows: Sequence[Row]) -> None:
        # Where JSON is in a document, it is text here.
        plain = [[bytes(value).decode() if isinstance(value, msgspec.Raw) else value for value in row] for row in rows]
        for row in plain:  # the driver sends large ones alone
            self.refuse_large(*(value for value in row if isinstance(value, str)))
        super().insert(cursor, model, columns, plain)

    def insert_if_absent(self, cursor: CursorWrapper, model: type[Model], columns: Sequence[str], values: Row) -> bool:
        # A plain INSERT that meets its key takes a shared lock. Two that waited for one row would both have it, and
        # deadlock as soon as one goes on to write the row; this form takes the exclusive lock at once. INSERT IGNORE
        # would truncate silently. The row count is 1 either way, so the unique second column tells who is there.
        table, key, second = model._meta.db_table, columns[0], columns[1]
        places = ", ".join(["%s"] * len(columns))
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON DUPLICATE KEY UPDATE {key} = {key}",
            list(values),
        )
        cursor.execute(f"SELECT {second} FROM {table} WHERE {key} = %s FOR UPDATE", [values[0]])
        return bool(cursor.fetchone()[0] == values[1])

    def delete(
        self, cursor: Writer, model: type[Model], key: Sequence[str], keys: Sequence[Key], where: str = ""
    ) -> int:
        source, parameter = self._rows(model, tuple(key), sorted(as_tuples(keys)))
        cursor.execute(
            f"DELETE t FROM {source} STRAIGHT_JOIN {_forced(model)} ON {_on(key)} WHERE 1 = 1 {where}",
            [parameter],
        )
        return int(cursor.rowcount)

    def update(
        self, cursor: Writer, model: type[Model], key: Sequence[str], columns: Sequence[str], rows: Sequence[Row]
    ) -> None:
        changes = ", ".join(f"t.{column} = j.{column}" for column in columns)
        for page in _pages(rows):
            source, parameter = self._rows(model, (*key, *columns), page)
            self.refuse_large(parameter)
            cursor.execute(f"UPDATE {source} STRAIGHT_JOIN {_forced(model)} ON {_on(key)} SET {changes}", [parameter])

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
        source, parameter = self._rows(model, tuple(key), sorted(as_tuples(keys)))
        chosen = ", ".join(f"t.{column}" for column in columns)
        cursor.execute(
            f"SELECT {chosen} FROM {source} STRAIGHT_JOIN {_forced(model)} ON {_on(key)} "
            f"WHERE 1 = 1 {where} {f'{self.row_lock} {_ON_LOCKED[lock]}' if lock else ''}",
            [parameter],
        )
        return list(cursor.fetchall())

    def to_json(self, text: str) -> Any:
        return msgspec.Raw(text.encode())  # JSON_TABLE would take text for a JSON string

    @contextmanager
    def impatient_transaction(self) -> Iterator[CursorWrapper]:
        with self.connection.cursor() as session:
            session.execute("SET SESSION innodb_lock_wait_timeout = 0")  # which MySQL takes for 1
            try:
                with super().impatient_transaction() as cursor:
                    yield cursor
            finally:
                session.execute("SET SESSION innodb_lock_wait_timeout = 1")

    def is_lock_timeout(self, error: Exception) -> bool:
        return bool(error.args) and error.args[0] == 1205

    def is_deadlock(self, error: Exception) -> bool:
        return bool(error.args) and error.args[0] == 1213

    def _rows(self, model: type[Model], columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> tuple[str, str]:
        paths = ", ".join(
            f"{field.column} {self._json_type(field)} PATH '$[{number}]'"
            for number, field in enumerate(columns_of(model, columns))
        )
        return f"JSON_TABLE(%s, '$[*]' COLUMNS({paths})) j", _encode(rows).decode()

    def _json_type(self, field: Any) -> str:
        db_type = str(field.db_parameters(self.connection)["type"])
        if "ascii" in db_type:
            return f"{db_type} COLLATE ascii_bin"
        return db_type.replace(" AUTO_INCREMENT", "")


def _forced(model: type[Model]) -> str:
    return f"{model._meta.db_table} t FORCE INDEX (PRIMARY)"


def _on(key: Sequence[str]) -> str:
    return " AND ".join(f"t.{column} = j.{column}" for column in key)


def _pages(rows: Sequence[Row]) -> Iterator[list[tuple[Any, ...]]]:
    """Cut rows into statements below the default max_allowed_packet of 16 MB; a larger one looks like an outage."""
    page: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        length = _size_of(row)
        if page and size + length > _LARGEST:
            yield page
            page, size = [], 0
        page.append(tuple(row))
        size += length
    yield page


def _size_of(row: Row) -> int:
    return sum(len(bytes(value) if isinstance(value, msgspec.Raw) else value) for value in row if _is_text(value))


def _is_text(value: object) -> bool:
    return isinstance(value, str | msgspec.Raw)

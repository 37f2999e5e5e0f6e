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

from .base import Dialect, Key, Lock, Row, as_tuples, columns_of, documents
from .postponed import LARGEST

_ON_LOCKED = {"skip": "SKIP LOCKED", "wait": ""}
_encode = msgspec.json.Encoder().encode
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

    @contextmanager
    def turn(self) -> Iterator[CursorWrapper]:
        if not self.connection.settings_dict["OPTIONS"].get("multi_statements", True):
            with super().turn() as cursor:
                yield cursor
            return
        with super().turn() as cursor, self.postponing():
            yield cursor

    def insert(self, cursor: CursorWrapper, model: type[Model], columns: Sequence[str], rows: Sequence[Row]) -> None:
        # Where JSON is in a document, it is text here.
        plain = [[bytes(value).decode() if isinstance(value, msgspec.Raw) else value for value in row] for row in rows]
        for page in _pages(plain):
            places = ", ".join([f"({', '.join(['%s'] * len(columns))})"] * len(page))
            values = [value for row in page for value in row]
            self.refuse_large(*(value for value in values if isinstance(value, str)))
            self.later(cursor, f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) VALUES {places}", values)

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

    def _delete(self, model: type[Model], key: Sequence[str], keys: Sequence[Key]) -> tuple[str, list[str]]:
        source = self._source(model, tuple(key))
        return f"DELETE t FROM {source} STRAIGHT_JOIN {_forced(model)} ON {_on(key)}", [_sorted(keys)]

    def update(
        self, cursor: CursorWrapper, model: type[Model], key: Sequence[str], columns: Sequence[str], rows: Sequence[Row]
    ) -> None:
        changes = ", ".join(f"t.{column} = j.{column}" for column in columns)
        source = self._source(model, (*key, *columns))
        for document in documents(_encode, rows):
            self.refuse_large(document)
            self.later(
                cursor, f"UPDATE {source} STRAIGHT_JOIN {_forced(model)} ON {_on(key)} SET {changes}", [document]
            )

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
        source = self._source(model, tuple(key))
        chosen = ", ".join(f"t.{column}" for column in columns)
        cursor.execute(
            f"SELECT {chosen} FROM {source} STRAIGHT_JOIN {_forced(model)} ON {_on(key)} "
            f"WHERE 1 = 1 {where} {f'{self.row_lock} {_ON_LOCKED[lock]}' if lock else ''}",
            [_sorted(keys)],
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

    def _source(self, model: type[Model], columns: tuple[str, ...]) -> str:
        """Return the rows of a document as a table `j`."""
        paths = ", ".join(
            f"{field.column} {self._json_type(field)} PATH '$[{number}]'"
            for number, field in enumerate(columns_of(model, columns))
        )
        return f"JSON_TABLE(%s, '$[*]' COLUMNS({paths})) j"

    def _json_type(self, field: Any) -> str:
        db_type = str(field.db_parameters(self.connection)["type"])
        if "ascii" in db_type:
            return f"{db_type} COLLATE ascii_bin"
        return db_type.replace(" AUTO_INCREMENT", "")


def _forced(model: type[Model]) -> str:
    return f"{model._meta.db_table} t FORCE INDEX (PRIMARY)"


def _on(key: Sequence[str]) -> str:
    return " AND ".join(f"t.{column} = j.{column}" for column in key)


def _sorted(keys: Sequence[Key]) -> str:
    return _encode(sorted(as_tuples(keys))).decode()


def _pages(rows: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """Cut rows into statements below the default max_allowed_packet of 16 MB; a larger one looks like an outage."""
    page: list[list[Any]] = []
    size = 0
    for row in rows:
        length = sum(len(value) for value in row if isinstance(value, str))
        if page and size + length > LARGEST:
            yield page
            page, size = [], 0
        page.append(row)
        size += length
    yield page

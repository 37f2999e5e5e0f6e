"""What the store asks of a database vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from django.db import models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from .postponed import LARGEST, Check, Postponed

Row = Sequence[Any]
Lock = Literal["", "skip", "wait"]
Key = Any  # one value, or a tuple of one value per key column


@cache
def columns_of(model: type[Model], names: tuple[str, ...]) -> tuple[models.Field[Any, Any], ...]:
    """Return the fields behind column names."""
    by_column = {field.column: field for field in model._meta.local_concrete_fields}
    return tuple(by_column[name] for name in names)


def as_tuples(keys: Iterable[Key]) -> list[tuple[Any, ...]]:
    return [key if isinstance(key, tuple) else (key,) for key in keys]


def documents(encode: Callable[[Sequence[Row]], bytes], rows: Sequence[Row]) -> Iterator[str]:
    """Yield rows as encoded documents that one statement carries; a row is not cut, however large."""
    document = encode(rows)
    if len(document) <= LARGEST or len(rows) < 2:
        yield document.decode()
    else:
        middle = len(rows) // 2
        yield from documents(encode, rows[:middle])
        yield from documents(encode, rows[middle:])


class Dialect:
    """Set-wise reads and writes by key, in one statement each."""

    # How a SELECT locks rows; empty where a transaction that writes is alone anyway.
    row_lock = "FOR UPDATE"
    # The database's own clock as seconds since 1970; the statement's time, not the transaction's.
    clock_sql = ""
    # The same clock as an expression to compare columns of times with.
    now_sql = ""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self._postponed: Postponed | None = None

    # Sessions

    def prepare_session(self, cursor: CursorWrapper, lease_seconds: float) -> None:
        """Set up a connection that runs turns: isolation, a short lock timeout, an end for frozen transactions."""

    def now(self, cursor: CursorWrapper) -> datetime:
        """Return the database's clock."""
        cursor.execute(self.clock_sql)
        return datetime.fromtimestamp(float(cursor.fetchone()[0]), UTC)

    def to_time(self, value: datetime | None) -> Any:
        """Return a datetime as the driver wants it."""
        return self.connection.ops.adapt_datetimefield_value(value) if value is not None else None

    def from_time(self, value: Any) -> datetime | None:
        """Return an aware UTC datetime for what the driver delivered."""
        if value is None:
            return None
        parsed: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)

    def refuse_large(self, *texts: str) -> None:
        """Raise PayloadTooLarge for text that no statement can carry: it would look like an outage."""

    # Transactions

    @contextmanager
    def turn(self) -> Iterator[CursorWrapper]:
        """Begin the transaction of a turn, joined to an outer one without a savepoint."""
        with transaction.atomic(using=self.connection.alias, savepoint=False), self.connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def postponing(self) -> Iterator[Postponed]:
        """Let `later` postpone statements in this block, which ends with all of them sent."""
        self._postponed = postponed = Postponed(self.connection)
        try:
            with self.connection.execute_wrapper(postponed):
                yield postponed
                postponed.send()
        finally:
            self._postponed = None

    def later(self, cursor: CursorWrapper, sql: str, params: Sequence[Any], check: Check | None = None) -> None:
        """Execute a statement whose answer is not waited for; `check` gets a cursor with it in due time."""
        if self._postponed is not None:
            self._postponed.add(sql, params, check)
            return
        cursor.execute(sql, params)
        if check is not None:
            check(cursor)

    @contextmanager
    def impatient_transaction(self) -> Iterator[CursorWrapper]:
        """Begin a transaction of this worker's own, in which no lock is waited for but a moment."""
        with transaction.atomic(using=self.connection.alias, savepoint=False), self.connection.cursor() as cursor:
            yield cursor

    # Statements by key: `insert`, `delete` and `update` are executed `later`

    def insert(self, cursor: CursorWrapper, model: type[Model], columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows; their values are text, numbers, booleans, None, and times as `to_time` returns them."""
        raise NotImplementedError

    def insert_if_absent(self, cursor: CursorWrapper, model: type[Model], columns: Sequence[str], values: Row) -> bool:
        """Insert one row unless its primary key, the first column, is taken; return whether it was inserted.

        Waits for another transaction that has inserted the key and not ended. The caller's transaction stays usable.
        """
        places = ", ".join(["%s"] * len(columns))
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) VALUES ({places}) "
            f"ON CONFLICT ({columns[0]}) DO NOTHING",
            list(values),
        )
        return bool(cursor.rowcount == 1)

    def delete(self, cursor: CursorWrapper, model: type[Model], key: Sequence[str], keys: Sequence[Key]) -> None:
        """Delete rows by key."""
        self.later(cursor, *self._delete(model, key, keys))

    def delete_counted(self, cursor: CursorWrapper, model: type[Model], key: Sequence[str], keys: Sequence[Key]) -> int:
        """Delete rows by key and return how many there were."""
        cursor.execute(*self._delete(model, key, keys))
        return int(cursor.rowcount)

    def _delete(self, model: type[Model], key: Sequence[str], keys: Sequence[Key]) -> tuple[str, Sequence[Any]]:
        """Return the statement that deletes rows by key, and its parameters."""
        raise NotImplementedError

    def update(
        self, cursor: CursorWrapper, model: type[Model], key: Sequence[str], columns: Sequence[str], rows: Sequence[Row]
    ) -> None:
        """Update `columns` of one row per key; each row is the key's values followed by the new ones."""
        raise NotImplementedError

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
        """Select rows by key, and lock those that others hold not ("skip") or all of them ("wait").

        `where` calls the table `t`. Only a row that no application's transaction can hold may be waited for.
        """
        raise NotImplementedError

    def to_json(self, text: str) -> Any:
        """Return JSON text as `insert` and `update` want it for a column of JSON."""
        return text

    def is_lock_timeout(self, error: Exception) -> bool:
        """Tell whether a statement gave up waiting for a lock."""
        return False

    def is_deadlock(self, error: Exception) -> bool:
        """Tell whether the database chose this transaction to end a deadlock: all of it may be repeated."""
        return False

    def is_data_error(self, error: Exception) -> bool:
        """Tell whether a statement failed for what it was given, so that a part of it may still succeed."""
        from django.db import DataError, IntegrityError

        return isinstance(error, DataError | IntegrityError)

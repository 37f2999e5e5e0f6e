"""Statements that travel ahead of the next one, so that a turn waits for the server only where it needs an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

LARGEST = 2_000_000  # characters of parameters in one text: far below the 16 MB that MySQL takes and PostgreSQL's 1 GB

Check = Callable[[CursorWrapper], None]


class _Statement(NamedTuple):
    sql: str
    params: Sequence[Any]
    check: Check | None  # looks at the answer, and raises where it is not as expected


class Postponed:
    """The statements of one transaction that wait; a wrapper of all that its connection executes.

    Whatever is executed on the connection, by whom ever, takes along what waits, in one text, and comes after it.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._waiting: list[_Statement] = []
        self._size = 0  # characters of their parameters

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, sql: str, params: Sequence[Any] = (), check: Check | None = None) -> None:
        """Have a statement wait for the next one."""
        size = _size(params)
        self._make_room(size)
        self._waiting.append(_Statement(sql, params, check))
        self._size += size

    def send(self) -> None:
        """Execute what waits."""
        if self._waiting:
            last = self._waiting.pop()
            self._size -= _size(last.params)
            with self._connection.cursor() as cursor:
                cursor.execute(last.sql, last.params)
                if last.check is not None:
                    last.check(cursor)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Execute a statement together with what waits, and leave the cursor at its own answer."""
        if many:
            self.send()
        elif self._size:
            self._make_room(_size(params))
        waiting, self._waiting, self._size = self._waiting, [], 0
        if not waiting:
            return execute(sql, params, many, context)
        own = sql.replace("%", "%%") if params is None else sql
        text = "; ".join([*(statement.sql for statement in waiting), own])
        result = execute(text, [*chain(*(s.params for s in waiting)), *(params or ())], many, context)
        cursor = context["cursor"]
        for statement in waiting:
            if statement.check is not None:
                statement.check(cursor)
            cursor.nextset()
        return result

    def _make_room(self, size: int) -> None:
        if self._size + size > LARGEST:
            self.send()


def _size(params: Sequence[Any] | None) -> int:
    return sum([len(value) for value in params or () if isinstance(value, str)])

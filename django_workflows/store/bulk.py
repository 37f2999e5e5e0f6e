"""Inserting many executions with their open rows: by the statements of the dialects, a third of what the ORM costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from django.db import models
from django.db.backends.utils import CursorWrapper

from django_workflows.models import OpenInstance, WorkflowInstance

from .database import Database
from .dialects.base import Dialect, Row

_FIELDS = [field for field in WorkflowInstance._meta.local_concrete_fields if not field.primary_key]
_COLUMNS = tuple(str(field.column) for field in _FIELDS)
_OPEN = ("open_key", "chain_id", "instance_id", "queue", "history_length", "crashes", "blocks")
_PAGE = 500


def insert_executions(database: Database, cursor: CursorWrapper, rows: Sequence[WorkflowInstance]) -> None:
    """Insert executions, whose times are values, not expressions, and set their primary keys."""
    convert = _converters(database.dialect)
    values: list[Row] = [[change(getattr(row, name)) for name, change in convert] for row in rows]
    insert_paged(database, cursor, WorkflowInstance, _COLUMNS, values)
    _fetch_ids(database, rows)


def insert_open(database: Database, cursor: CursorWrapper, rows: Sequence[WorkflowInstance]) -> None:
    """Insert the open rows of chains that begin with these executions; raises IntegrityError for an id that is open."""
    values: list[Row] = [(row.instance_key, row.pk, row.pk, row.queue, 0, 0, 0) for row in rows]
    insert_paged(database, cursor, OpenInstance, _OPEN, values)


def insert_paged(
    database: Database, cursor: CursorWrapper, model: type[models.Model], columns: Sequence[str], rows: Sequence[Row]
) -> None:
    """Insert any number of rows, in statements of a bounded size."""
    for start in range(0, len(rows), _PAGE):
        database.dialect.insert(cursor, model, columns, rows[start : start + _PAGE])


def _converters(dialect: Dialect) -> list[tuple[str, Callable[[Any], Any]]]:
    """Return the attributes of an execution, each with what makes its value one that `insert` takes."""
    found: list[tuple[str, Callable[[Any], Any]]] = []
    for field in _FIELDS:
        convert: Callable[[Any], Any] = _unchanged
        if isinstance(field, models.DateTimeField):
            convert = dialect.to_time
        elif isinstance(field, models.JSONField):
            convert = lambda value: dialect.to_json(msgspec.json.encode(value).decode())  # noqa: E731
        elif field.choices:
            convert = str
        found.append((field.attname, convert))
    return found


def _unchanged(value: Any) -> Any:
    return value


def _fetch_ids(database: Database, rows: Sequence[WorkflowInstance]) -> None:
    """Read back the keys that the database gave: no vendor returns them in the order of the rows."""
    by_execution = {row.execution_id: row for row in rows}
    keys = list(by_execution)
    for start in range(0, len(keys), _PAGE):
        page = WorkflowInstance.objects.using(database.alias).filter(execution_id__in=keys[start : start + _PAGE])
        for execution_id, pk in page.order_by().values_list("execution_id", "pk"):
            by_execution[execution_id].pk = pk

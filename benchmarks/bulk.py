"""Many instances by SQL: rows of one real instance, cloned with other ids and keys."""

from __future__ import annotations

import os
from collections.abc import Iterator

from django.db import connection, connections
from django.db.models import Max, Model

from django_workflows.models import HistoryEvent, OpenInstance, Timer, WorkflowInstance

_PAGE = 50_000
# Per vendor: 32 random hexadecimal digits; a text with a number behind it; a time `i` seconds before another.
_KEY = {
    "postgresql": "md5(random()::text || n.i)",
    "sqlite": "lower(hex(randomblob(16)))",
    "mysql": "md5(concat(rand(), n.i))",
}
_TEXT = {
    "postgresql": "t.{0} || '-' || n.i",
    "sqlite": "t.{0} || '-' || n.i",
    "mysql": "concat(t.{0}, '-', n.i)",
}
_TIME = {
    "postgresql": "t.{0} - n.i * interval '1 second'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', t.{0}, '-' || n.i || ' seconds')",
    "mysql": "t.{0} - interval n.i second",
}


def use_database(name: str) -> None:
    """Turn this process, and the workers that it starts, to another database of the same vendor."""
    from tests.settings import sqlite_path

    connection.close()
    connections["default"].settings_dict["NAME"] = sqlite_path(name) if connection.vendor == "sqlite" else name
    os.environ["DATABASE_NAME"] = name


def clone_closed(template: WorkflowInstance, count: int) -> None:
    """Add closed instances like this one, with their histories, closed one a second until the template was."""
    _clone(template, count, HistoryEvent)


def clone_sleeping(template: WorkflowInstance, count: int) -> None:
    """Add open instances like this one, each with its history, its open row and its timer."""
    _clone(template, count, HistoryEvent, OpenInstance, Timer)


def _clone(template: WorkflowInstance, count: int, *models: type[Model]) -> None:
    highest = WorkflowInstance.objects.aggregate(highest=Max("id"))["highest"]
    every: tuple[type[Model], ...] = (WorkflowInstance, *models)
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"SET SESSION max_recursive_iterations = {_PAGE + 1}")
        for first, last in _pages(count):
            for model in every:
                cursor.execute(_insert(model, template.pk, highest, first, last).replace("%", "%%"), ())
    _settle()


def _pages(count: int) -> Iterator[tuple[int, int]]:
    for first in range(1, count + 1, _PAGE):
        yield first, min(first + _PAGE - 1, count)


def _insert(model: type[Model], template: int, highest: int, first: int, last: int) -> str:
    columns = [field.column for field in model._meta.concrete_fields if field.column]
    values = ", ".join(_value(model, column, highest) for column in columns)
    table, key = model._meta.db_table, "id" if model is WorkflowInstance else "instance_id"
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) "
        f"WITH RECURSIVE n (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) "
        f"SELECT {values} FROM {table} t, n WHERE t.{key} = {template}"
    )


def _value(model: type[Model], column: str, highest: int) -> str:
    vendor, is_instance = connection.vendor, model is WorkflowInstance
    if column in ("instance_key", "execution_id", "open_key"):
        return _KEY[vendor]
    if column == "id" or (column in ("instance_id", "chain_id") and not is_instance):
        return f"{highest} + n.i"
    if column == "instance_id":
        return _TEXT[vendor].format(column)
    if is_instance and column in ("created_at", "closed_at"):
        return _TIME[vendor].format(column)
    return f"t.{column}"


def _settle() -> None:
    """Bring the id sequence behind the new rows, and statistics to what automatic maintenance would make of them."""
    tables = ", ".join(model._meta.db_table for model in (WorkflowInstance, HistoryEvent, OpenInstance, Timer))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            table = WorkflowInstance._meta.db_table
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")
            cursor.execute(f"VACUUM ANALYZE {tables}")
        elif connection.vendor == "mysql":
            cursor.execute(f"ANALYZE TABLE {tables}")
            cursor.fetchall()
        else:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")

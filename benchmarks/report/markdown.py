"""Small pieces of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NAMES = {
    "postgresql": "PostgreSQL", "sqlite": "SQLite", "mariadb": "MariaDB", "ours": "django_workflows", "dbos": "DBOS",
    "celery": "Celery", "procrastinate": "procrastinate", "absurd": "Absurd",
}  # fmt: skip


@dataclass
class Section:
    """A part of the report: Markdown, and the pictures that it shows by name."""

    markdown: str
    pictures: dict[str, str] = field(default_factory=dict)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def milliseconds(of: dict[str, float]) -> str:
    """Return a median and a 99th percentile in milliseconds."""
    return f"{of['p50']:.1f}, {of['p99']:.1f}"


def count(number: float | str) -> str:
    return f"{int(number):,}"

"""Text for terminals: aligned, and harmless whatever ids and messages contain."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from django.utils import timezone

Paint = Callable[[str], str]


def shell_word(text: str) -> str:
    """Return the text as it can be typed into a shell: an id is printed so that it can be copied.

    >>> shell_word("order-17"), shell_word("order 17"), shell_word("order\\n17")
    ('order-17', "'order 17'", "$'order\\\\u000a17'")
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escape(char) if char in "'\\" or not char.isprintable() else char for char in text) + "'"


def one_line(text: str) -> str:
    """Return the text with everything escaped that would break a line, move a cursor or turn the text around."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def block(text: str, indent: str = "  ") -> list[str]:
    """Return the lines of a text, each indented and harmless."""
    return [f"{indent}{one_line(line)}".rstrip() for line in text.expandtabs(4).split("\n")]


def shortened(text: str, limit: int) -> str:
    """Return the text, or its beginning and how long it is."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def time_of(moment: datetime) -> str:
    """Return a time in the project's time zone."""
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], paint: Mapping[int, Paint] | None = None
) -> list[str]:
    """Return the lines of a table; `paint` colours the cells of a column, which are measured before."""
    cells = [list(headers), *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = [[cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)] for row in cells]
    for row in lines[1:]:
        for column, colour in (paint or {}).items():
            row[column] = colour(row[column])
    return ["  ".join(row).rstrip() for row in lines]


def facts(pairs: Iterable[tuple[str, object]]) -> list[str]:
    """Return one line for each label and value, the values below each other; those without a value are left out."""
    known = [(label, str(value)) for label, value in pairs if value not in (None, "")]
    width = max((_width(label) for label, _ in known), default=0)
    return [f"{label}{' ' * (width - _width(label))}  {value}" for label, value in known]


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _width(text: str) -> int:
    """Return how many columns a terminal takes for the text."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )

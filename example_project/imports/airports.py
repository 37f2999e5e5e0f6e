"""Read airports from CSV: a bad line is rejected with its number, a bad file with a sentence."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("iata", "name", "city", "state", "country", "latitude", "longitude")
LENGTHS = {"name": 100, "city": 100, "state": 2, "country": 100}
CODE = re.compile(r"[A-Z0-9]{3,4}")


class BadFile(Exception):
    """The file as a whole cannot be imported; the message tells its author what to change."""


class BadLine(ValueError):
    """One line cannot be imported."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that was left out, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class AirportRow:
    """The valid content of one line."""

    iata: str
    name: str
    city: str
    state: str
    country: str
    latitude: float
    longitude: float

    def values(self) -> dict[str, Any]:
        return asdict(self)


def read_airports(data: bytes) -> tuple[list[AirportRow], list[Rejected]]:
    """Return the valid rows in file order and the rejected lines; raise BadFile if it is no such file at all."""
    rows: list[AirportRow] = []
    rejected: list[Rejected] = []
    first_seen: dict[str, int] = {}
    for line, fields in _lines(_decode(data)):
        try:
            row = _row(fields)
            if row.iata in first_seen:
                raise BadLine(f"code {row.iata} is on line {first_seen[row.iata]} already")
        except BadLine as error:
            rejected.append(Rejected(line, str(error)))
        else:
            first_seen[row.iata] = line
            rows.append(row)
    return rows, rejected


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadFile(
            f"Line {line}: byte 0x{data[error.start]:02x} is not UTF-8. Save the file as CSV with UTF-8 encoding."
        ) from None


def _lines(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the named fields of every line after the header that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    columns: list[str] | None = None
    try:
        for fields in reader:
            if columns is None:
                columns = _header(fields)
            elif fields:
                yield start, dict(zip(columns, fields, strict=True)) if len(fields) == len(columns) else {}
            start = reader.line_num + 1
    except csv.Error as error:
        raise BadFile(f"Line {reader.line_num}: this is not valid CSV ({error}). Check the quotes.") from None
    if columns is None:
        raise BadFile("The file is empty. Its first line must name the columns " + ", ".join(COLUMNS) + ".")


def _header(fields: list[str]) -> list[str]:
    columns = [field.strip().lower() for field in fields]
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        found = ", ".join(columns)[:200] or "an empty line"
        raise BadFile(
            f"Line 1: expected the columns {', '.join(COLUMNS)}, separated by commas; found {found}. "
            f"Missing: {', '.join(missing)}."
        )
    return columns


def _row(fields: dict[str, str]) -> AirportRow:
    if not fields:
        raise BadLine("the number of fields differs from the header's")
    return AirportRow(
        iata=_code(fields["iata"].strip()),
        latitude=_degrees(fields, "latitude", 90),
        longitude=_degrees(fields, "longitude", 180),
        **{column: _text(fields, column) for column in LENGTHS},
    )


def _code(value: str) -> str:
    if not CODE.fullmatch(value):
        raise BadLine(f"iata: expected 3 or 4 capital letters or digits, found {value[:20]!r}")
    return value


def _text(fields: dict[str, str], column: str) -> str:
    value = fields[column].strip()
    if not value:
        raise BadLine(f"{column} is empty")
    if "\0" in value:
        raise BadLine(f"{column} contains a NUL character")
    if len(value) > LENGTHS[column]:
        raise BadLine(f"{column}: expected at most {LENGTHS[column]} characters, found {len(value)}")
    return value


def _degrees(fields: dict[str, str], column: str, limit: int) -> float:
    text = fields[column].strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -limit <= value <= limit:  # true for NaN too
        raise BadLine(f"{column}: expected a number from -{limit} to {limit}, found {text[:20]!r}")
    return value

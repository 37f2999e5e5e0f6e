"""The types of commands' arguments: each takes the text of a command line, and what a caller of call_command() has."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec
from django.utils.dateparse import parse_duration

from django_workflows.keys import key_of
from django_workflows.models import InstanceStatus

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_PART = re.compile(r"(\d+(?:\.\d+)?)([wdhms])", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_LONGEST = timedelta(days=36525)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_EXECUTION_ID = re.compile("[0-9a-f]{32}")


class Json(NamedTuple):
    """A value that was given as JSON text."""

    value: Any


def duration(value: object) -> timedelta:
    """Read 30d, 12h, 90m, 45s or 1d12h; a bare number is refused, because everybody takes it for another unit."""
    expected = (
        f"expected a number with its unit, such as 30d, 12h, 90m or 45s (100 years at most), found {_shown(value)}"
    )
    try:
        found = value if isinstance(value, timedelta) else _parse_duration(str(value).strip())
    except (ValueError, OverflowError):
        found = None
    if found is None or not timedelta(0) <= found <= _LONGEST:
        raise ArgumentTypeError(expected)
    return found


def _parse_duration(text: str) -> timedelta | None:
    if _DURATION.fullmatch(text):
        parts = [timedelta(**{_UNITS[unit]: float(number)}) for number, unit in _PART.findall(text)]
        return sum(parts, timedelta())
    # What call_command() makes of a timedelta for a required option: "30 days, 0:00:00".
    return parse_duration(text) if ":" in text else None


def json_value(value: object) -> Json:
    """Read one JSON value."""
    if not isinstance(value, str):
        return value if isinstance(value, Json) else Json(value)
    try:
        return Json(msgspec.json.decode(value))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        advice = f"; text needs quotes of its own: '\"{value}\"'" if re.fullmatch(r"[\w .:/@-]{1,60}", value) else ""
        raise ArgumentTypeError(f"expected JSON, found {_shown(value)} ({error}){advice}") from None


def json_object(value: object) -> dict[str, Any]:
    """Read a JSON object."""
    found = value if isinstance(value, dict) else json_value(value).value
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ArgumentTypeError(f"expected a JSON object such as '{{\"gift\": true}}', found {_shown(value)}")
    return found


def text_of(limit: int) -> Callable[[object], str]:
    """Return a type for text of at most so many characters that every database can store."""

    def text(value: object) -> str:
        if not isinstance(value, str) or not value or len(value) > limit:
            raise ArgumentTypeError(f"expected 1 to {limit} characters, found {_shown(value)}")
        if found := _UNSTORABLE.search(value):
            raise ArgumentTypeError(f"expected text without {found[0]!r}, found {_shown(value)}")
        return value

    return text


def reason(value: object) -> str:
    """Read a reason, which may be left out."""
    return "" if value == "" else text_of(2000)(value)


def instance_id(value: object) -> str:
    """Read an instance_id as the client takes it."""
    try:
        key_of(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(str(error)) from None
    return str(value)


def execution_id(value: object) -> str:
    """Read an execution_id."""
    if not isinstance(value, str) or not _EXECUTION_ID.fullmatch(value):
        raise ArgumentTypeError(f"expected an execution_id of 32 hexadecimal digits, found {_shown(value)}")
    return value


def one_of(choices: Iterable[str]) -> Callable[[object], str]:
    """Return a type for one of a few words; an error names the closest one."""
    words = [str(choice) for choice in choices]

    def word(value: object) -> str:
        if value not in words:
            raise ArgumentTypeError(
                f"expected one of {', '.join(words)}, found {_shown(value)}{did_you_mean(value, words)}"
            )
        return str(value)

    return word


def count_up_to(most: int) -> Callable[[object], int]:
    """Return a type for a whole number from 1."""

    def count(value: object) -> int:
        try:
            found = int(str(value))
        except ValueError:
            found = 0
        if not 1 <= found <= most:
            raise ArgumentTypeError(f"expected a number from 1 to {most}, found {_shown(value)}")
        return found

    return count


def seconds(value: object) -> timedelta:
    """Read a number of seconds, 0 to a hundred years."""
    try:
        found = timedelta(seconds=float(str(value)))
    except (ValueError, OverflowError):
        found = timedelta(-1)
    if not timedelta(0) <= found <= _LONGEST:
        raise ArgumentTypeError(f"expected a number of seconds (100 years at most), found {_shown(value)}")
    return found


def did_you_mean(value: object, words: Iterable[str]) -> str:
    """Return the end of an error message that names what was probably meant, nothing where nothing is close."""
    close = get_close_matches(str(value)[:200], list(words), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


STATUSES = [status.value for status in InstanceStatus]
CLOSED_STATUSES = [status.value for status in InstanceStatus if status.is_closed]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"

"""Finds the part of a value that JSON or a database cannot hold, and says what to pass instead."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from .converters import Converter, find_converter

__all__ = ["Problem", "encode_json", "find_problem", "looks_unsafe", "name_of_type"]

_LARGEST_INTEGER = 2**64 - 1
_SMALLEST_INTEGER = -(2**63)
_PLAIN_TYPES = frozenset({str, int, float, dict, list, tuple})
_SURROGATE = re.compile("[\ud800-\udfff]").search
_LONG_NUMBER = re.compile(rb"[0-9]{19}").search


class Problem(NamedTuple):
    """Where in a value something cannot be stored (empty: the value itself), and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where or 'the value'} {self.reason}"


def _to_builtin(value: object) -> object:
    kind: Any = value.__class__  # of a lazy object, such as request.user, what it stands for
    converter = find_converter(kind)
    if converter is not None:
        return converter.encode(value)
    # Django's choices, its SafeString and numpy's float64 are subclasses that msgspec does not know.
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"Encoding objects of type {name_of_type(value)} is unsupported")


encode_json = msgspec.json.Encoder(enc_hook=_to_builtin).encode


def looks_unsafe(data: bytes) -> bool:
    """Tell whether the JSON of a value gives a reason to look for problems in the value."""
    # msgspec writes NaN and infinity as null; looking at the text is much cheaper than walking every value.
    return b"null" in data or b"\\u0000" in data or _LONG_NUMBER(data) is not None


def find_problem(value: object) -> Problem | None:
    """Find the first part of `value` that cannot be stored.

    >>> find_problem({"lines": [1, "a\\0b"]})
    Problem(where="['lines'][1]", reason='contains a NUL character, which PostgreSQL cannot store')
    """
    if value is None or value is True or value is False:
        return None
    if type(value) not in _PLAIN_TYPES:
        kind: Any = value.__class__
        converter = find_converter(kind)
        if converter is not None:
            return _problem_of_converted(value, converter)
        if isinstance(value, enum.Enum):
            return _inside(".value", value.value)
    if isinstance(value, str):
        return _as_problem(_problem_of_text(value))
    if isinstance(value, (int, float)):
        return _as_problem(_problem_of_number(value))
    if isinstance(value, dict):
        return _find_in_dict(value)
    parts = _parts(value)
    if parts is None:
        return _as_problem(_problem_of_leaf(value))
    for where, part in parts:
        problem = find_problem(part)
        if problem is not None:
            return Problem(where + problem.where, problem.reason)
    return None


def name_of_type(value: object) -> str:
    """Name the type of `value` as an author would look it up: `int`, `shop.models.Order`."""
    kind = value.__class__
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _as_problem(reason: str | None) -> Problem | None:
    return None if reason is None else Problem("", reason)


def _inside(where: str, part: object) -> Problem | None:
    problem = find_problem(part)
    return None if problem is None else Problem(where + problem.where, problem.reason)


def _problem_of_text(value: str) -> str | None:
    if "\0" in value:
        return "contains a NUL character, which PostgreSQL cannot store"
    if not value.isascii() and _SURROGATE(value):
        return "contains a lone surrogate, which is not valid Unicode; decode the original bytes with another encoding"
    return None


def _problem_of_number(value: int | float) -> str | None:
    if isinstance(value, float):
        finite = math.isfinite(value)
        return None if finite else f"is {float(value)}, which JSON cannot express; pass None or a string"
    if not _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:
        return "is an integer beyond 64 bits; pass it as str or Decimal"
    return None


def _find_in_dict(value: dict[Any, Any]) -> Problem | None:
    for key, part in value.items():
        problem = find_problem(key) or _as_problem(None if type(key) in (str, int) else _problem_of_key(key))
        if problem is not None:
            return Problem(f"[key {_short(key)}]{problem.where}", problem.reason)
        problem = find_problem(part)
        if problem is not None:
            return Problem(f"[{_short(key)}]{problem.where}", problem.reason)
    return None


def _problem_of_key(key: object) -> str | None:
    try:
        encode_json({key: 0})
    except Exception:
        return f"is of type {name_of_type(key)}, but JSON objects have only text and number keys"
    return None


def _problem_of_converted(value: object, converter: Converter) -> Problem | None:
    try:
        stored = converter.encode(value)
    except Exception as error:
        return Problem("", f"is of type {name_of_type(value)}, which could not be encoded: {error or repr(error)}")
    problem = find_problem(stored)
    return problem and Problem(problem.where, f"{problem.reason} (in what is stored of {name_of_type(value)})")


def _problem_of_leaf(value: object) -> str | None:
    if isinstance(value, msgspec.Raw):
        return None
    try:
        encode_json(value)
    except Exception as error:
        return f"is of type {name_of_type(value)}, which cannot be encoded as JSON; {_advice(value, error)}"
    return None


def _parts(value: object) -> Iterator[tuple[str, object]] | None:
    """Give the parts of a container with the text that leads to each, or None for a value without parts."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return ((f".{name}", part) for name, part in zip(value._fields, value, strict=False))
    if isinstance(value, (list, tuple)):
        return ((f"[{index}]", part) for index, part in enumerate(value))
    if isinstance(value, (set, frozenset)):
        return (("{...}", part) for part in value)
    names = _field_names(value)
    return None if names is None else ((f".{name}", getattr(value, name, None)) for name in names)


def _field_names(value: object) -> list[str] | None:
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value)]
    attributes = getattr(type(value), "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


def _short(key: object) -> str:
    text = ascii(key)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _advice(value: object, error: Exception) -> str:
    kind = type(value)
    if hasattr(kind, "as_manager"):
        return "pass a list of its objects, of primary keys or of values()"
    if kind.__name__ == "__proxy__":
        return "pass str() of the lazy text"
    if inspect.isawaitable(value):
        return "await it first and pass its result"
    if isinstance(value, Iterator):
        return "pass a list"
    return "pass plain data or a dataclass, or see register_type()" if isinstance(error, TypeError) else str(error)

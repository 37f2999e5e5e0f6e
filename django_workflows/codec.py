"""Between values and JSON text: the codec of this package, and those that a project puts in its place."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from .annotations import decoder_for
from .exceptions import PayloadError
from .payload_checks import encode_json, find_problem, looks_unsafe, name_of_type

__all__ = ["Codec", "JSONCodec", "encode_with", "reason_of", "refuse_problem"]


class Codec(Protocol):
    """What the class that the `CODEC` setting names has to provide.

    It stores every payload: arguments, results, signal values, side effects. What it returns is JSON, because histories
    are. It is used in several threads at once and in workflow code, so it has no state that changes and asks nobody.
    """

    def encode(self, value: object) -> str:
        """Return JSON text for a value, or raise an exception that says what is wrong with it."""
        ...

    def decode(self, text: str, annotation: Any) -> Any:
        """Return the value of a JSON text, as the annotation wants it; `Any` where there is none."""
        ...


class JSONCodec:
    """The codec of this package, for others to build upon."""

    def encode(self, value: object) -> str:
        """Return the JSON of a value; raises PayloadError with the part that cannot be stored."""
        try:
            data = encode_json(value)
            if looks_unsafe(data):
                refuse_problem(value)
        except Exception as error:
            raise PayloadError(reason_of(value, error)) from error
        return data.decode()

    def decode(self, text: str, annotation: Any) -> Any:
        """Decode JSON to the annotation; raises msgspec.ValidationError, a ValueError."""
        return decoder_for(annotation, what="The value")(text)


def refuse_problem(value: object) -> None:
    """Raise PayloadError, with nothing but the reason, for a value of which a part cannot be stored."""
    problem = find_problem(value)
    if problem is not None:
        raise PayloadError(str(problem))


def encode_with(codec: Codec, value: object) -> bytes:
    """Encode a value with another codec, and refuse what is no JSON or what a database cannot hold."""
    name = name_of_type(codec)
    try:
        text = codec.encode(value)
        if not isinstance(text, str):
            raise TypeError(f"expected JSON text of type str, found {name_of_type(text)}")
        data = text.encode()
        plain = msgspec.json.decode(data)
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(f"{name} made no JSON of the {name_of_type(value)}: {error or repr(error)}") from error
    problem = find_problem(plain)
    if problem is not None:
        raise PayloadError(f"{name} returned JSON in which {problem}")
    return data


def reason_of(value: object, error: Exception) -> str:
    """Say why a value could not be encoded: the part that is at fault, else the error."""
    if isinstance(error, PayloadError):
        return str(error)
    try:
        problem = None if isinstance(error, RecursionError) else find_problem(value)
    except RecursionError as too_deep:
        problem, error = None, too_deep
    if isinstance(error, RecursionError):
        return f"the {name_of_type(value)} contains itself or is nested too deeply"
    return f"{problem or f'the {name_of_type(value)} cannot be encoded: {error or repr(error)}'}"

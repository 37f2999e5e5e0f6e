"""Types of the project's own: how their values become JSON, and how they come back."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec
import msgspec.inspect

from .exceptions import RegistrationError
from .pydantic_models import decode_pydantic, encode_pydantic, is_pydantic_model

__all__ = ["Converter", "find_converter", "note_decoder", "register_type"]

T = TypeVar("T")


class Converter(NamedTuple):
    """How the values of one class are stored."""

    encode: Callable[[Any], object]
    decode: Callable[[Any, Any], Any]
    subclasses: bool


# Subclasses of these are stored as plain data before any hook is asked, as are enums, dataclasses and the like.
_STORED_BY_MSGSPEC = (dict, list, tuple, set, frozenset, timedelta, uuid.UUID, enum.Enum)
_PYDANTIC = Converter(encode_pydantic, decode_pydantic, subclasses=True)

_converters: dict[type, Converter] = {}
_decoded: set[type] = set()  # the classes in annotations that were made decoders of


def register_type(
    cls: type[T], *, encode: Callable[[T], object], decode: Callable[[type[T], Any], T], subclasses: bool = False
) -> None:
    """Let values of `cls` be arguments, results and signal values, alone or inside of others.

    `encode(value)` returns what is stored: plain JSON data, or anything else that can be stored. `decode(cls, data)`
    makes the value again from the JSON data; `cls` is the annotated class, which may be a subclass of the registered
    one if `subclasses` is true. Both must be quick and use nothing but their arguments: they also run in workflow code.

    Call it where the class is defined. Raises RegistrationError for a class that is registered already, that is stored
    without a hook, or that an annotation was used with before.

    >>> register_type(Money, encode=lambda money: [money.cents, money.currency], decode=lambda cls, data: cls(*data))
    """
    converter = Converter(encode, decode, subclasses)
    if _converters.get(cls) == converter:
        return
    _check_class(cls)
    if cls in _converters:
        raise RegistrationError(f"register_type({_name(cls)}): expected a new class, found one that is registered")
    late = next((used for used in _decoded if used is cls or (subclasses and issubclass(used, cls))), None)
    if late is not None:
        raise RegistrationError(
            f"register_type({_name(cls)}): {_name(late)} was used in an annotation before; register it in the module "
            f"that defines it"
        )
    _converters[cls] = converter
    find_converter.cache_clear()


@lru_cache(maxsize=2000)
def find_converter(cls: type) -> Converter | None:
    """Return the converter of a class: its own, or that of the nearest base which was registered with subclasses."""
    for base in cls.__mro__:
        converter = _converters.get(base)
        if converter is not None and (converter.subclasses or base is cls):
            return converter
    return _PYDANTIC if is_pydantic_model(cls) else None


def note_decoder(cls: type) -> None:
    """Remember that a decoder was made for a class: another way to decode it would come too late."""
    _decoded.add(cls)


def _check_class(cls: object) -> None:
    if not isinstance(cls, type):
        raise RegistrationError(f"register_type(): expected a class, found {cls!r}")
    info = msgspec.inspect.type_info(cls)
    if issubclass(cls, _STORED_BY_MSGSPEC) or not isinstance(info, msgspec.inspect.CustomType):
        raise RegistrationError(
            f"register_type({_name(cls)}): expected a class that JSON has no form for, found one whose values are "
            f"stored without a hook; wrap the value in a class of its own"
        )


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"

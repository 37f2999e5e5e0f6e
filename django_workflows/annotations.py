"""Decoders for type annotations: which types JSON can be decoded to, and a clear error for the others."""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import msgspec.inspect

from .converters import find_converter, note_decoder
from .exceptions import RegistrationError

__all__ = ["Decoder", "decoder_for", "describe_type", "resolve_annotations"]

Decoder = Callable[[Any], Any]

_OPEN_ANNOTATIONS = (object, typing.NoReturn, typing.Never, typing.Self)
_decoders: dict[Any, Decoder] = {}


def decoder_for(annotation: Any, *, what: str) -> Decoder:
    """Give the function that decodes JSON to `annotation`; `what` names the annotated thing in the error.

    >>> decoder_for(set[int], what="parameter 'sizes' of shop.pick")(b"[3, 3, 4]")
    {3, 4}
    """
    try:
        return _decoders[annotation]
    except KeyError:
        decoder = _decoders[annotation] = _build(annotation, what)
        return decoder
    except TypeError:  # not hashable, such as Annotated[int, [...]]
        return _build(annotation, what)


def describe_type(annotation: Any) -> str:
    """Write an annotation as its author did: `int | None`, `shop.types.Address`."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        module, name = annotation.__module__, annotation.__qualname__
        return name if module == "builtins" else f"{module}.{name}"
    return str(annotation).replace("typing.", "").replace("NoneType", "None")


def resolve_annotations(function: Callable[..., Any], signature: inspect.Signature, name: str) -> dict[str, Any]:
    """Give the annotation of each parameter and of "return"; `Any` where there is none.

    >>> def charge(order_id: "int", note=""): ...
    >>> resolve_annotations(charge, inspect.signature(charge), "shop.charge")
    {'order_id': <class 'int'>, 'note': typing.Any, 'return': typing.Any}
    """
    target = inspect.unwrap(function)
    enclosing = dict(zip(target.__code__.co_freevars, _contents(target), strict=True))
    try:
        hints = typing.get_type_hints(target, localns=enclosing, include_extras=True)
    except Exception as error:
        raise RegistrationError(
            f"The annotations of {name}{signature} cannot be resolved: {error}. Import the names they use at module "
            f"level, not only under TYPE_CHECKING or inside a function."
        ) from error
    resolved = {parameter.name: _hint(parameter, hints) for parameter in signature.parameters.values()}
    return {**resolved, "return": hints.get("return", Any)}


def _hint(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    hint = hints.get(parameter.name, Any)
    if typing.get_origin(hint) is typing.Unpack:
        return Any
    return hint | None if parameter.default is None else hint


def _contents(function: Callable[..., Any]) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # assigned later
            yield Any


def _build(annotation: Any, what: str) -> Decoder:
    if annotation in _OPEN_ANNOTATIONS or isinstance(annotation, (typing.ParamSpecArgs, typing.ParamSpecKwargs)):
        annotation = Any
    elif annotation is typing.LiteralString:
        annotation = str
    try:
        custom = _custom_classes(msgspec.inspect.type_info(annotation), set())
    except Exception as error:
        if not _has_type_variables(annotation):
            raise _not_decodable(annotation, what, str(error)) from error
        custom = [object]
    unknown = [cls for cls in custom if find_converter(cls) is None and not issubclass(cls, enum.Enum)]
    concrete = [cls for cls in unknown if cls is not object and cls.__module__ not in ("collections.abc", "typing")]
    if concrete and not _has_type_variables(annotation):
        names = ", ".join(describe_type(cls) for cls in concrete)
        raise _not_decodable(annotation, what, f"{names} has no JSON form that it can be decoded from")
    for cls in custom:
        note_decoder(cls)
    decoder: Decoder = msgspec.json.Decoder(Any if unknown else annotation, dec_hook=_from_builtin).decode
    return decoder


def _from_builtin(cls: Any, value: Any) -> Any:
    converter = find_converter(typing.get_origin(cls) or cls)
    if converter is None:
        # An enum whose class has a metaclass of its own, as Django's TextChoices and IntegerChoices do.
        return cls(value)
    try:
        return converter.decode(cls, value)
    except (ValueError, TypeError):
        raise
    except Exception as error:  # one of the two above: msgspec adds to them where in the value this is
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _custom_classes(info: object, seen: set[int]) -> list[type]:
    """Return the classes in an annotation that msgspec leaves to `_from_builtin`."""
    if id(info) in seen:
        return []
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return [info.cls]
    return [cls for part in _parts(info) for cls in _custom_classes(part, seen)]


def _parts(info: object) -> Iterator[object]:
    if isinstance(info, tuple):
        yield from info
    elif isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)):
        for name in info.__struct_fields__:
            yield getattr(info, name)


def _has_type_variables(annotation: Any) -> bool:
    if isinstance(annotation, typing.TypeVar):
        return True
    return not isinstance(annotation, type) and bool(getattr(annotation, "__parameters__", ()))


def _not_decodable(annotation: Any, what: str, reason: str) -> RegistrationError:
    return RegistrationError(
        f"{what} is annotated {describe_type(annotation)}, which cannot be decoded from JSON: {reason}. "
        f"Annotate it with plain types, a dataclass, TypedDict, NamedTuple, Enum, datetime, Decimal, UUID or a model; "
        f"make other classes known with register_type()."
    )

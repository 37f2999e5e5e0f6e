"""The typed JSON codec: values are checked when they are stored and decoded to their annotations when they are read.

A payload is JSON text. The annotation decides what comes back: `date` gives a date, `set[int]` a set of ints, a
dataclass that dataclass. A value without an annotation comes back as plain JSON data. Nothing is ever pickled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any
from weakref import WeakSet

import msgspec
from msgspec import Raw

from .annotations import Decoder, decoder_for, describe_type, resolve_annotations
from .codec import Codec, JSONCodec, encode_with, reason_of, refuse_problem
from .exceptions import PayloadError, PayloadTooLarge
from .payload_checks import encode_json, find_problem, looks_unsafe

__all__ = ["CallSignature", "Payload", "Raw", "decode", "encode", "encode_plain", "use_codec"]

Payload = bytes | str | Raw

_EMPTY = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_LONGEST_REASON = 500
_codec: Codec | None = None  # None is this package's own
_resolved: WeakSet[CallSignature] = WeakSet()
_resolving = Lock()
_split_arguments = msgspec.json.Decoder(tuple[list[Raw], dict[str, Raw]]).decode


def use_codec(codec: Codec | None) -> None:
    """Store and read all payloads with another codec from now on; None goes back to this package's own."""
    global _codec
    with _resolving:
        _codec = codec
        for signature in _resolved:
            signature.forget()


def encode(value: object, *, what: str, limit: int | None = None) -> bytes:
    """Encode `value` as JSON, or raise a `PayloadError` that says what is wrong with it and where.

    >>> encode({"order": 17, "paid": True}, what="the result of shop.pay")
    b'{"order":17,"paid":true}'
    >>> encode([1.5, float("nan")], what="argument 'prices' of shop.pay")
    Traceback (most recent call last):
    django_workflows.exceptions.PayloadError: Cannot store argument 'prices' of shop.pay: [1] is nan, which ...
    """
    try:
        if _codec is None:
            data = encode_json(value)
            if looks_unsafe(data):
                refuse_problem(value)
        else:
            data = encode_with(_codec, value)
    except Exception as error:
        raise _cannot_store(what, reason_of(value, error)) from error
    if limit is not None and len(data) > limit:
        raise _too_large(what, len(data), limit)
    return data


def encode_plain(value: object, *, what: str, limit: int | None = None) -> bytes:
    """Encode as `encode` does without a codec of the project's: for what is no payload and is read as plain JSON."""
    try:
        data = JSONCodec().encode(value).encode()
    except PayloadError as error:
        raise _cannot_store(what, error) from error
    if limit is not None and len(data) > limit:
        raise _too_large(what, len(data), limit)
    return data


def decode(data: Payload, type: Any, *, what: str) -> Any:
    """Decode JSON to the annotation `type`, or raise a `PayloadError` with expected, found and where.

    >>> decode(b'"2026-03-01"', datetime.date, what="the result of shop.due")
    datetime.date(2026, 3, 1)
    >>> decode(b'[1, "x"]', list[int], what="the result of shop.sizes")
    Traceback (most recent call last):
    django_workflows.exceptions.PayloadError: Cannot decode the result of shop.sizes to list[int]: Expected `int`, ...
    """
    decoder = decoder_for(type, what=what) if _codec is None else _decoder_with(_codec, type)
    try:
        return decoder(data)
    except Exception as error:
        raise _cannot_decode(type, what, error) from error


def _too_large(what: str, size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"Cannot store {what}: {size:,} bytes of JSON, more than the limit of {limit:,} bytes. Keep the data in a "
        f'model or a file and pass its key, or raise DJANGO_WORKFLOWS["MAX_PAYLOAD_BYTES"].'
    )


def _decoder_for(annotation: Any, what: str) -> Decoder:
    return decoder_for(annotation, what=what) if _codec is None else _decoder_with(_codec, annotation)


def _decoder_with(codec: Codec, annotation: Any) -> Decoder:
    return lambda data: codec.decode(data if isinstance(data, str) else bytes(data).decode(), annotation)


def _cannot_store(what: str, reason: object) -> PayloadError:
    return PayloadError(f"Cannot store {what}: {reason}.")


def _cannot_decode(type: Any, what: str, error: Exception) -> PayloadError:
    if isinstance(error, RecursionError):
        return PayloadError(f"Cannot decode {what}: the JSON is nested too deeply.")
    reason = str(error)  # it quotes values of enums, however long
    reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
    return PayloadError(f"Cannot decode {what} to {describe_type(type)}: {reason}.")


class CallSignature:
    """How one workflow or activity is called: binds, stores and reads back its arguments and its result.

    Built once per function with `CallSignature.of`. Annotations are resolved on first use, so they may name classes
    that are defined later in the module.

    >>> def charge(order_id: int, due: datetime.date | None = None) -> decimal.Decimal: ...
    >>> signature = CallSignature.of(charge, name="shop.charge")
    >>> signature.encode_arguments((17,), {"due": datetime.date(2026, 3, 1)})
    b'[[17,"2026-03-01"],{}]'
    >>> signature.decode_arguments(b'[[17,"2026-03-01"],{}]')
    ([17, datetime.date(2026, 3, 1)], {})
    >>> signature.bind((), {})
    Traceback (most recent call last):
    TypeError: shop.charge() missing a required argument: 'order_id'
    """

    __slots__ = (
        "__weakref__", "_decoders", "_function", "_maximum", "_required", "_result_decoder", "_types", "name",
        "signature",
    )  # fmt: skip

    def __init__(self, function: Callable[..., Any], signature: inspect.Signature, name: str) -> None:
        self.name = name
        self.signature = signature
        self._function = function
        parameters = signature.parameters.values()
        positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
        self._required = sum(parameter.default is _EMPTY for parameter in positional)
        self._maximum = len(positional)
        if any(parameter.kind is parameter.KEYWORD_ONLY and parameter.default is _EMPTY for parameter in parameters):
            self._maximum = -1  # no call without keywords fits
        self._types: dict[str, Any] | None = None
        self._decoders: list[Decoder] = []
        self._result_decoder: Decoder | None = None

    @classmethod
    def of(cls, function: Callable[..., Any], *, name: str, skip_self: bool = False) -> CallSignature:
        """Read the signature of `function`; `skip_self` leaves out the first parameter of a method."""
        signature = inspect.signature(function)
        if skip_self:
            parameters = list(signature.parameters.values())[1:]
            signature = signature.replace(parameters=parameters)
        return cls(function, signature, name)

    def __repr__(self) -> str:
        return f"<CallSignature {self.name}{self.signature}>"

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Check a call against the signature and make keywords positional where that is possible.

        Raises `TypeError` with the words of a Python call that does not fit, under the registered name.
        """
        if not kwargs and self._required <= len(args) <= self._maximum:
            return args, kwargs
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        return bound.args, bound.kwargs

    def check(self) -> None:
        """Resolve all annotations now; raises `RegistrationError` for one that cannot be decoded."""
        self._resolve()

    def encode_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any], limit: int | None = None) -> bytes:
        """Encode a call as `[[positional...],{keywords...}]`; a `PayloadError` names the parameter at fault."""
        if self._types is None:
            self._resolve()
        args, kwargs = self.bind(args, kwargs)
        data = None
        if _codec is None:
            try:  # in one go, which is much quicker than one argument after the other
                data = encode_json((args, kwargs))
                if looks_unsafe(data):
                    refuse_problem((args, kwargs))
            except Exception:
                data = None
        if data is None:
            data = self._encode_each(args, kwargs)
        if limit is not None and len(data) > limit:
            raise _too_large(f"the arguments of {self.name}", len(data), limit)
        return data

    def decode_arguments(self, data: Payload) -> tuple[list[Any], dict[str, Any]]:
        """Decode a stored call, each argument to its annotation.

        Raises `PayloadError` if the stored call does not fit the function any more.
        """
        if self._types is None:
            self._resolve()
        try:
            raw_args, raw_kwargs = _split_arguments(data)
        except Exception as error:
            raise _cannot_decode("[[positional...], {keywords...}]", f"the arguments of {self.name}", error) from error
        if raw_kwargs or not self._required <= len(raw_args) <= self._maximum:
            return self._decode_uncommon(raw_args, raw_kwargs)
        try:
            return [decoder(raw) for decoder, raw in zip(self._decoders, raw_args, strict=False)], {}
        except Exception:
            return self._decode_uncommon(raw_args, raw_kwargs)

    def encode_result(self, value: object, limit: int | None = None) -> bytes:
        """Encode what the function returned."""
        return encode(value, what=f"the result of {self.name}", limit=limit)

    def decode_result(self, data: Payload) -> Any:
        """Decode a stored result to the return annotation."""
        if self._result_decoder is None:
            self._resolve()
            assert self._result_decoder is not None
        try:
            return self._result_decoder(data)
        except Exception as error:
            raise _cannot_decode(self._resolve()["return"], f"the result of {self.name}", error) from error

    def forget(self) -> None:
        """Resolve the annotations again at the next use: another codec has other decoders."""
        self._types = self._result_decoder = None

    def _resolve(self) -> dict[str, Any]:
        with _resolving:
            if self._types is None:
                types = resolve_annotations(self._function, self.signature, self.name)
                decoders = {
                    parameter: _decoder_for(annotation, self._describe(parameter))
                    for parameter, annotation in types.items()
                }
                self._result_decoder = decoders["return"]
                self._decoders = [decoders[parameter.name] for parameter in self._parameters_of_kind(*_POSITIONAL)]
                self._types = types
                _resolved.add(self)
            return self._types

    def _describe(self, parameter: str) -> str:
        return f"The result of {self.name}" if parameter == "return" else f"Parameter {parameter!r} of {self.name}"

    def _parameters_of_kind(self, *kinds: inspect._ParameterKind) -> list[inspect.Parameter]:
        return [parameter for parameter in self.signature.parameters.values() if parameter.kind in kinds]

    def _encode_each(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        problem = find_problem(list(kwargs))
        if problem is not None:
            raise _cannot_store(f"the names of the arguments of {self.name}", problem)
        values = [
            Raw(encode(value, what=f"argument {name!r} of {self.name}")) for name, _, value in self._pair(args, kwargs)
        ]
        return encode_json((values[: len(args)], dict(zip(kwargs, values[len(args) :], strict=True))))

    def _decode_uncommon(self, raw_args: list[Raw], raw_kwargs: dict[str, Raw]) -> tuple[list[Any], dict[str, Any]]:
        try:
            self.signature.bind(*raw_args, **raw_kwargs)
        except TypeError as error:
            raise PayloadError(
                f"The stored arguments do not fit {self.name}{self.signature}: {error}. Found {len(raw_args)} by "
                f"position and {sorted(raw_kwargs)} by keyword; keep old parameters and give new ones a default."
            ) from None
        types = self._resolve()
        values = [
            decode(raw, types[parameter], what=f"argument {name!r} of {self.name}")
            for name, parameter, raw in self._pair(raw_args, raw_kwargs)
        ]
        count = len(raw_args)
        return values[:count], dict(zip(raw_kwargs, values[count:], strict=True))

    def _pair(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
        """Give each value of a bound call with its name and the name of the parameter that takes it."""
        positional = [parameter.name for parameter in self._parameters_of_kind(*_POSITIONAL)]
        rest = self._parameters_of_kind(inspect.Parameter.VAR_POSITIONAL)
        positional += [parameter.name for parameter in rest for _ in args[len(positional) :]]
        yield from ((name, name, value) for name, value in zip(positional, args, strict=False))
        keywords = {parameter.name for parameter in self._parameters_of_kind(*_KEYWORD)}
        others = self._parameters_of_kind(inspect.Parameter.VAR_KEYWORD)
        for name, value in kwargs.items():
            yield name, name if name in keywords else others[0].name, value

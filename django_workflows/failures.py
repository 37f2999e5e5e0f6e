"""Failures: what is stored of an exception, and how it becomes an exception again elsewhere.

A failure is JSON: the dotted name of the class, the arguments and attributes that JSON can express, the traceback as
text, the cause. Rebuilding neither unpickles nor imports anything: it uses a class only if its module is loaded.
"""

from __future__ import annotations

import asyncio
import math
import re
import sys
import textwrap
import traceback as tracebacks
from datetime import timedelta
from typing import Any

import msgspec

from .exceptions import ActivityError

__all__ = ["Failure", "RemoteTraceback", "dotted_name", "find_class"]

MAX_TRACEBACK = 8_000
MAX_MESSAGE = 4_000
_MAX_ARGUMENTS = 32_000
_MAX_TOTAL = 256_000
_MAX_DEPTH = 30

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_OWN_MODULES = tuple(f"django_workflows.{name}" for name in ("engine", "authoring", "replayer", "worker"))
_LEADS_TO = "\nThe above exception led to the following exception:\n\n"


class RemoteTraceback(Exception):
    """Where a rebuilt exception was raised, as text: the last `__cause__` in its chain, so that it is printed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of an exception.

    `type` is the dotted name of its class. `args` and `attributes` (its `__dict__`) are None where JSON cannot express
    them. `members` are those of an ExceptionGroup. `non_retryable`, an attribute of the exception, ends the retries.

    >>> failure = Failure.of(ValueError("no such order", 17))
    >>> failure.type, failure.args
    ('builtins.ValueError', ['no such order', 17])
    >>> Failure.decode(failure.encode()).rebuild()
    ValueError('no such order', 17)
    """

    type: str
    message: str
    args: list[Any] | None = None
    traceback: str = ""
    cause: Failure | None = None
    non_retryable: bool = False
    members: tuple[Failure, ...] = ()
    attributes: dict[str, Any] | None = {}

    @classmethod
    def of(cls, exc: BaseException, *, max_traceback: int = MAX_TRACEBACK, non_retryable: bool = False) -> Failure:
        """Describe an exception with its causes; never raises, and the result can always be stored.

        Text that databases refuse (NUL, lone surrogates) is replaced, and what is too long is shortened.
        """
        failure = _Recorder(max_traceback).record(exc)
        return msgspec.structs.replace(failure, non_retryable=True) if non_retryable else failure

    def rebuild(self) -> BaseException:
        """Make the exception again, or an `ActivityError` where its class or its arguments are not known here.

        The end of its chain of causes is a `RemoteTraceback`, so that printing it shows where it was raised.
        """
        return _rebuild(self, self.format())

    def format(self) -> str:
        """Give the traceback text of the whole chain, the cause first, as Python prints it."""
        text = self.traceback or f"{self.type}: {self.message}\n"
        for member in self.members:
            text += textwrap.indent(f"{member.format().rstrip()}\n", "  | ", lambda line: True) + "  +----\n"
        return text if self.cause is None else f"{self.cause.format().rstrip()}\n{_LEADS_TO}{text}"

    def encode(self) -> bytes:
        """Encode as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes | str | msgspec.Raw) -> Failure:
        """Decode what `encode` gave."""
        return _decoder.decode(data)


_decoder = msgspec.json.Decoder(Failure)


def dotted_name(cls: type) -> str:
    """Name a class as `module.QualName`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def find_class(name: str) -> type[BaseException] | None:
    """Find an exception class by its dotted name in the modules that are loaded; imports nothing.

    >>> find_class("builtins.KeyError"), find_class("shop.not_loaded.CardDeclined")
    (<class 'KeyError'>, None)
    """
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:split]))
        for part in parts[split:]:
            # Not getattr: a module's or a metaclass's __getattr__ may import or run anything.
            found = getattr(found, "__dict__", {}).get(part)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
    return None


def mark_of(exc: BaseException, name: str) -> Any:
    """Give an attribute by which an exception speaks to its retry policy, None without one; never raises."""
    try:
        return getattr(exc, name, None)
    except Exception:
        return None


class _Recorder:
    """Describes an exception and those it leads to within one budget of bytes."""

    def __init__(self, max_traceback: int) -> None:
        self._max_traceback = max_traceback
        self._left = _MAX_TOTAL
        self._seen: set[int] = set()

    def record(self, exc: BaseException, depth: int = 0) -> Failure:
        self._seen.add(id(exc))
        if isinstance(exc, RemoteTraceback):
            text = self._text(exc.text, self._max_traceback)
            return Failure(type=dotted_name(RemoteTraceback), message="", traceback=text)
        failure = Failure(
            type=self._text(dotted_name(type(exc)), MAX_MESSAGE),
            message=self._text(_message(exc), MAX_MESSAGE),
            args=None if isinstance(exc, BaseExceptionGroup) else self._plain(list(exc.args)),
            traceback=self._text(_format_traceback(exc), self._max_traceback),
            attributes=self._plain(_attributes(exc)),
            non_retryable=mark_of(exc, "non_retryable") is True,
        )
        cause = exc.__cause__ if exc.__suppress_context__ or exc.__cause__ is not None else exc.__context__
        causes = self._record_all([] if cause is None else [cause], depth)
        members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
        recorded = self._record_all(members, depth)
        text = failure.traceback
        if len(recorded) < len(members):
            text += f"({len(members) - len(recorded)} of {len(members)} exceptions in this group are not stored)\n"
        return msgspec.structs.replace(
            failure, cause=causes[0] if causes else None, members=tuple(recorded), traceback=text
        )

    def _record_all(self, excs: Any, depth: int) -> list[Failure]:
        recorded: list[Failure] = []
        for exc in excs:
            if id(exc) not in self._seen and self._left > 0 and depth < _MAX_DEPTH:
                recorded.append(self.record(exc, depth + 1))
        return recorded

    def _text(self, text: str, limit: int) -> str:
        text = _storable(text)
        if len(text) > limit:
            head = limit // 4
            text = f"{text[:head]}\n... ({len(text) - limit:,} characters left out) ...\n{text[head - limit :]}"
        self._left -= len(msgspec.json.encode(text)) + 20
        return text

    def _plain(self, value: Any) -> Any:
        """Give `value` as JSON would return it, or None where that would be something else or too much."""
        try:
            plain = _as_plain_json(value)
            size = len(msgspec.json.encode(plain))
        except Exception:
            return None
        self._left -= size
        return plain if size <= _MAX_ARGUMENTS else None


def _attributes(exc: BaseException) -> dict[str, Any]:
    attributes = dict(vars(exc))
    delay = attributes.get("next_retry_delay")
    if isinstance(delay, timedelta):  # which JSON has no form for; seconds mean the same
        attributes["next_retry_delay"] = delay.total_seconds()
    return attributes


def _storable(text: str) -> str:
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _as_plain_json(value: Any) -> Any:
    if value is None or type(value) is bool or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is int and -(2**63) <= value < 2**64:
        return value
    if isinstance(value, str):
        return _storable(str.__str__(value))
    if type(value) is list:
        return [_as_plain_json(part) for part in value]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {_as_plain_json(key): _as_plain_json(part) for key, part in value.items()}
    raise ValueError(f"JSON would change a {type(value).__name__}.")


def _message(exc: BaseException) -> str:
    if isinstance(exc, BaseExceptionGroup):
        return exc.message
    for to_text in (str, repr):
        try:
            return str.__str__(to_text(exc))
        except Exception:
            continue
    return "(its message cannot be shown: __str__ and __repr__ raise)"


def _format_traceback(exc: BaseException) -> str:
    frames = list(tracebacks.walk_tb(exc.__traceback__))
    theirs = [item for item in frames if not _is_own(item[0].f_globals.get("__name__"))]
    try:
        stack = tracebacks.StackSummary.extract(iter(theirs or frames)).format()
        header = ["Traceback (most recent call last):\n"] if stack else []
        return "".join([*header, *stack, *tracebacks.format_exception_only(exc)])
    except Exception:
        return ""


def _is_own(module: object) -> bool:
    return isinstance(module, str) and any(module == own or module.startswith(f"{own}.") for own in _OWN_MODULES)


def _rebuild(failure: Failure, text: str) -> BaseException:
    if failure.type == dotted_name(RemoteTraceback):
        return RemoteTraceback(text)
    try:
        known = _construct(failure)
    except Exception:
        known = None
    exc = ActivityError(failure.type, failure.message, failure.format()) if known is None else known
    exc.__cause__ = RemoteTraceback(text) if failure.cause is None else _rebuild(failure.cause, text)
    return exc


def _construct(failure: Failure) -> BaseException | None:
    cls = find_class(failure.type)
    if cls is None or not issubclass(cls, (Exception, asyncio.CancelledError, BaseExceptionGroup)):
        return None
    if issubclass(cls, BaseExceptionGroup):
        exc: BaseException | None = cls(failure.message, [member.rebuild() for member in failure.members])
    elif failure.args is None:
        return None
    else:
        exc = _call(cls, failure.args) or _restore(cls, failure)
    if not isinstance(exc, cls):
        return None
    vars(exc).update(failure.attributes or {})
    return exc


def _call(cls: type[BaseException], args: list[Any]) -> BaseException | None:
    try:
        exc = cls(*args)
    except Exception:
        return None
    # An __init__ that passes other arguments to super().__init__() would be called with the wrong ones here.
    return exc if list(exc.args) == args else None


def _restore(cls: type[BaseException], failure: Failure) -> BaseException | None:
    """Make the exception as copying does, without its own `__init__`: from `args` and the complete `__dict__`."""
    if failure.args is None or failure.attributes is None:
        return None
    exc = cls.__new__(cls, *failure.args)
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    builtin.__init__(exc, *failure.args)
    return exc if list(exc.args) == failure.args else None

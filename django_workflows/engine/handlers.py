"""What answers the messages to an instance: its handlers, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol, TypeVar

from msgspec import Raw

from django_workflows.exceptions import UnknownHandlerError

T = TypeVar("T")

# A coroutine that is made when its task begins: one that never does leaves nothing that was never awaited.
Work = Callable[[], Coroutine[Any, Any, T]]


class Handlers(Protocol):
    """What the machine asks of an instance's code when a message arrives."""

    def signal(self, name: str, value: Raw) -> Work[None] | None:
        """Return what handles a signal, None where it is kept for `Signal.receive()`."""

    def check_update(self, name: str, input: Raw) -> None:
        """Raise what refuses the update; changes nothing."""

    def update(self, name: str, input: Raw) -> Work[bytes]:
        """Return what handles an update and returns its encoded answer."""

    def query(self, name: str, input: Raw) -> bytes:
        """Return the encoded answer; changes nothing."""


class NoHandlers:
    """The handlers of an instance whose code is not there to answer."""

    def __init__(self, workflow: str, reason: str) -> None:
        self._problem = f"expected a running instance of {workflow} to handle it, found that {reason}"

    def signal(self, name: str, value: Raw) -> None:
        return None

    def check_update(self, name: str, input: Raw) -> None:
        raise UnknownHandlerError(f"update {name!r}: {self._problem}")

    def update(self, name: str, input: Raw) -> Work[bytes]:
        raise UnknownHandlerError(f"update {name!r}: {self._problem}")

    def query(self, name: str, input: Raw) -> bytes:
        raise UnknownHandlerError(f"query {name!r}: {self._problem}")


class Program(NamedTuple):
    """An instance's code, ready to run: what returns its encoded result, and who handles its messages."""

    main: Work[bytes]
    handlers: Handlers

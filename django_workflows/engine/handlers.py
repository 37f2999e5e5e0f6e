"""What answers the messages to an instance: the handlers of a class workflow, or nobody."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol

from msgspec import Raw

from django_workflows.exceptions import UnknownHandlerError


class Handlers(Protocol):
    """What the machine asks of the object that runs a class workflow."""

    def handles_signal(self, name: str) -> bool:
        """Tell whether signals of this name have a handler; the others are kept for `Signal.receive()`."""

    def signal(self, name: str, value: Raw) -> Coroutine[Any, Any, None]:
        """Return the coroutine that handles a signal."""

    def check_update(self, name: str, input: Raw) -> None:
        """Raise what refuses the update; changes nothing."""

    def update(self, name: str, input: Raw) -> Coroutine[Any, Any, bytes]:
        """Return the coroutine that handles an update and returns its encoded answer."""

    def query(self, name: str, input: Raw) -> bytes:
        """Return the encoded answer; changes nothing."""


class NoHandlers:
    """The handlers of a workflow that is a function, and of one that has not begun."""

    def __init__(self, workflow: str, reason: str = "it is a function") -> None:
        self._problem = f"expected a workflow class that handles this, found {workflow}: {reason}"

    def handles_signal(self, name: str) -> bool:
        return False

    def signal(self, name: str, value: Raw) -> Coroutine[Any, Any, None]:
        raise UnknownHandlerError(f"signal {name!r}: {self._problem}")

    def check_update(self, name: str, input: Raw) -> None:
        raise UnknownHandlerError(f"update {name!r}: {self._problem}")

    def update(self, name: str, input: Raw) -> Coroutine[Any, Any, bytes]:
        raise UnknownHandlerError(f"update {name!r}: {self._problem}")

    def query(self, name: str, input: Raw) -> bytes:
        raise UnknownHandlerError(f"query {name!r}: {self._problem}")


class Program(NamedTuple):
    """An instance's code, ready to run: its main coroutine, and who handles its messages."""

    main: Coroutine[Any, Any, bytes]
    handlers: Handlers

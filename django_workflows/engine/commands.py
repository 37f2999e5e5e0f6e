"""Commands: what workflow code asks for, until it is recorded as a history event."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .events import CommandEvent
from .loop import NumberedFuture

if TYPE_CHECKING:
    from .machine import Machine

_PACKAGE = __name__.split(".")[0]


class Command:
    """One decision: the event that will record it, and the source line that made it."""

    __slots__ = ("event", "location", "recorded", "withdrawn")

    def __init__(self, event: CommandEvent, location: str) -> None:
        self.event = event
        self.location = location
        self.recorded = False
        self.withdrawn = False


class CommandFuture(NumberedFuture):
    """The pending outcome of a command; cancelling it cancels the command."""

    machine: Machine
    command: int

    def cancel(self, msg: object = None) -> bool:
        if self.done():
            return False
        self.machine.cancel_command(self.command)
        return super().cancel(msg)


def calling_location() -> str:
    """Return `file:line` of the innermost frame outside this package and asyncio; empty when there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        top = module.partition(".")[0]
        if top != _PACKAGE and top != "asyncio":
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""

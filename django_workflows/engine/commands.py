"""Commands: what workflow code asks for, until it is recorded as a history event and its outcome arrives."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from .events import (
    ActivityCancelled,
    ActivityScheduled,
    ChildCancelRequested,
    ChildScheduled,
    CommandEvent,
    TimerCancelled,
)
from .loop import DurableTimerHandle, NumberedFuture

_PACKAGE = __name__.split(".")[0]
_STEPPING = f"{_PACKAGE}.engine.machine"


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

    commands: Commands
    command: int

    def cancel(self, msg: object = None) -> bool:
        if self.done():
            return False
        self.commands.cancel(self.command)
        return super().cancel(msg)


class Commands:
    """The decisions of one instance: numbered in the order they are taken, open until their outcome arrives."""

    def __init__(self) -> None:
        self.futures: dict[int, CommandFuture] = {}  # activities and children without an outcome
        self.timers: dict[int, DurableTimerHandle] = {}
        self.last_number = 0
        self._open: dict[int, Command] = {}  # the commands behind futures and timers
        self._new: list[Command] = []

    def next_number(self) -> int:
        self.last_number += 1
        return self.last_number

    def decide(self, event: CommandEvent, location: str = "") -> Command:
        """Add a decision without an outcome."""
        command = Command(event, location or calling_location())
        self._new.append(command)
        return command

    def schedule(self, event: CommandEvent, future: CommandFuture, location: str) -> None:
        """Add a decision whose outcome ends the future."""
        future.commands, future.command = self, event.command
        self.futures[event.command] = future
        self._open[event.command] = self.decide(event, location)

    def start_timer(self, event: CommandEvent, handle: DurableTimerHandle) -> None:
        """Add the decision to start a timer; `handle` runs when it fires and cancels it."""
        number = event.command
        handle.on_cancel = lambda: self.cancel(number) if number in self.timers else None
        self.timers[number] = handle
        self._open[number] = self.decide(event)

    def cancel(self, number: int) -> None:
        """Withdraw a decision that is not recorded yet, or decide to cancel it."""
        self.futures.pop(number, None)
        self.timers.pop(number, None)
        command = self._open.pop(number)
        if not command.recorded:
            command.withdrawn = True
            return
        cancel: type[CommandEvent]
        match command.event:
            case ActivityScheduled():
                cancel = ActivityCancelled
            case ChildScheduled():
                cancel = ChildCancelRequested
            case _:
                cancel = TimerCancelled
        self.decide(cancel(command=number))

    def close_future(self, number: int) -> CommandFuture:
        """Return the future whose outcome has arrived; the command is open no more."""
        del self._open[number]
        return self.futures.pop(number)

    def close_timer(self, number: int) -> DurableTimerHandle:
        """Return the handle of a timer that has fired; the command is open no more."""
        del self._open[number]
        return self.timers.pop(number)

    def take_new(self) -> list[Command]:
        """Return what was decided since the last call, now recorded."""
        decided = [command for command in self._new if not command.withdrawn]
        self._new = []
        for command in decided:
            command.recorded = True
        return decided

    def open_events(self) -> list[CommandEvent]:
        """Return the recorded commands without an outcome: what a close leaves to be cancelled."""
        return [self._open[number].event for number in sorted(self._open)]


def calling_location() -> str:
    """Return `file:line` of the innermost frame of workflow code; empty where asyncio alone is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_workflow_code(frame):
            return _location(frame)
        if frame.f_globals.get("__name__") == _STEPPING:
            break  # the frames further out are the worker's
        frame = frame.f_back
    return ""


def waiting_location(coroutine: object) -> str:
    """Return `file:line` of the innermost `await` of workflow code at which a coroutine waits; empty if it does not."""
    location = ""
    waiting: Any = coroutine
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None)
        if frame is not None and _is_workflow_code(frame):
            location = _location(frame)
        waiting = getattr(waiting, "cr_await", None)
    return location


def _is_workflow_code(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] not in (_PACKAGE, "asyncio")


def _location(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"

"""Commands: what workflow code asks for, until it is recorded as a history event and its outcome arrives."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

from .events import (
    ActivityCancelled,
    ActivityScheduled,
    ChildCancelRequested,
    ChildScheduled,
    ChildStarted,
    CommandEvent,
    ParentClose,
    ResultEvent,
    TimerCancelled,
    TimerFired,
    TimerStarted,
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
        if not self.commands.cancel(self.command):
            return True  # like a task that is cleaning up: it ends when the child has ended
        return super().cancel(msg)

    def end_cancelled(self) -> None:
        """Become cancelled: the child that was asked to cancel has done so."""
        super().cancel()


@dataclass
class _Child:
    event: ChildScheduled
    starting: bool  # its id was chosen by the author, and whether it could be started is not known yet
    wish: ParentClose | None = None  # what the code wants to become of it, once it is started

    @property
    def policy(self) -> ParentClose:
        return self.event.options.parent_close


_CANCELS: dict[type[CommandEvent], type[CommandEvent]] = {
    ActivityScheduled: ActivityCancelled,
    TimerStarted: TimerCancelled,
}


class Commands:
    """The decisions of one instance: numbered in the order they are taken, open until their outcome arrives."""

    def __init__(self) -> None:
        self.futures: dict[int, CommandFuture] = {}  # activities, children and messages without an outcome
        self.timers: dict[int, DurableTimerHandle] = {}
        self.last_number = 0
        self._open: dict[int, Command] = {}  # the commands behind futures and timers
        self._children: dict[int, _Child] = {}  # those recorded and open; those starting though nobody awaits them
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

        def cancel() -> None:
            if number in self.timers:
                self.cancel(number)

        handle.on_cancel = cancel
        self.timers[number] = handle
        self._open[number] = self.decide(event)

    def cancel(self, number: int) -> bool:
        """Withdraw a decision that is not recorded yet, or decide to cancel it.

        Return whether its future ends now; that of a child ends when the child has.
        """
        command = self._open[number]
        if not command.recorded:
            command.withdrawn = True
        elif number in self._children:
            return self._cancel_child(number)
        elif (cancel := _CANCELS.get(type(command.event))) is not None:
            self.decide(cancel(command=number))
        self._forget(number)
        return True

    def ask_child_to_cancel(self, number: int) -> None:
        """Decide that a child is to cancel, unless that is decided already."""
        command = self._open.get(number)
        if command is None:
            return
        if command.recorded:
            self._wish(self._children[number], "cancel")
        else:
            command.withdrawn = True
            self.futures[number].end_cancelled()
            self._forget(number)

    def _cancel_child(self, number: int) -> bool:
        child = self._children[number]
        if child.policy != "abandon":
            self._wish(child, child.policy)
        if child.policy == "cancel":
            return False
        self._forget(number)
        return True

    def _wish(self, child: _Child, wish: ParentClose) -> None:
        """Decide once what is to become of a child; of one that is just being started, as soon as it is."""
        if child.wish is None:
            child.wish = wish
            if not child.starting:
                self._decide_wish(child)

    def _decide_wish(self, child: _Child) -> None:
        self.decide(ChildCancelRequested(command=child.event.command, terminate=child.wish == "terminate"))

    def _forget(self, number: int) -> None:
        self.futures.pop(number, None)
        self.timers.pop(number, None)
        del self._open[number]
        if number in self._children and not self._children[number].starting:
            del self._children[number]

    # Outcomes

    def expects(self, event: ResultEvent) -> bool:
        """Tell whether an outcome still means something: late and repeated ones do not."""
        if isinstance(event, TimerFired):
            return event.command in self.timers
        child = self._children.get(event.command)
        if child is not None and child.starting:
            return True
        return event.command in self.futures and not isinstance(event, ChildStarted)

    def child_started(self, number: int) -> None:
        """Take note that a child with a chosen id exists."""
        child = self._children[number]
        child.starting = False
        if child.wish is not None:
            self._decide_wish(child)
        if number not in self.futures:
            del self._children[number]

    def is_unwanted(self, number: int) -> bool:
        """Tell whether a child was asked to cancel."""
        return number in self._children and self._children[number].wish is not None

    def close_future(self, number: int) -> CommandFuture | None:
        """Return the future whose outcome has arrived, None where nobody awaits it; the command is open no more."""
        self._open.pop(number, None)
        self._children.pop(number, None)
        return self.futures.pop(number, None)

    def close_timer(self, number: int) -> DurableTimerHandle:
        """Return the handle of a timer that has fired; the command is open no more."""
        del self._open[number]
        return self.timers.pop(number)

    # What the machine asks

    def take_new(self) -> list[Command]:
        """Return what was decided since the last call, now recorded."""
        decided = [command for command in self._new if not command.withdrawn]
        self._new = []
        for command in decided:
            command.recorded = True
            if isinstance(command.event, ChildScheduled):
                event = command.event
                self._children[event.command] = _Child(event, starting=event.chosen_id)
        return decided

    def open_events(self) -> list[CommandEvent]:
        """Return the recorded commands without an outcome: what a close leaves to be cancelled."""
        return [self._open[number].event for number in sorted(self._open)]

    def is_child_starting(self, number: int) -> bool:
        """Tell whether it is not known yet of a child if it could be started."""
        child, command = self._children.get(number), self._open.get(number)
        if child is not None:
            return child.starting
        return command is not None and isinstance(command.event, ChildScheduled) and command.event.chosen_id

    @property
    def is_starting(self) -> bool:
        """Whether it is not known yet of some child if it could be started; an execution does not close before."""
        return any(child.starting for child in self._children.values())

    @property
    def are_awaited(self) -> bool:
        """Whether something was started that a returned workflow waits for: all but abandoned children."""
        return any(
            number not in self._children or self._children[number].policy != "abandon" for number in self.futures
        )


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

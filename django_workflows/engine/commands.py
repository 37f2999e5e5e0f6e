"""Commands: what workflow code asks for, until it is recorded as a history event and its outcome arrives."""

from __future__ import annotations

import sys
from datetime import datetime
from types import FrameType
from typing import Any

from django_workflows.exceptions import WorkflowCancelled
from django_workflows.failures import dotted_name

from .events import (
    ActivityCancelled,
    ActivityFailed,
    ActivityScheduled,
    ChildCancelRequested,
    ChildFailed,
    ChildScheduled,
    ChildStarted,
    CommandEvent,
    MessageRefused,
    ParentClose,
    ResultEvent,
    TimerCancelled,
    TimerFired,
    TimerStarted,
)
from .exceptions_in_futures import raisable
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
    is_cancelling = False  # it was cancelled, and ends when the child has ended
    message: object = None  # of the cancellation

    def cancel(self, msg: object = None) -> bool:
        if self.done():
            return False
        if not self.commands.cancel(self.command):
            self.is_cancelling, self.message = True, msg
            return True  # as a task that is cleaning up does
        return super().cancel(msg)

    def end_cancelled(self) -> None:
        """Become cancelled: the child that was asked to cancel has done so, or never was."""
        super().cancel(self.message)


class Child:
    """A child that the code decided to start: what is known of it, and what is to become of it."""

    def __init__(self, event: ChildScheduled, known: NumberedFuture) -> None:
        self.event = event
        self.exists: bool | None = None  # not known before one with a chosen id is started: the id may be taken
        self.known = known  # done as soon as it is known
        self.wish: ParentClose | None = None  # what the code wants to become of it
        self.has_ended = False
        if not event.chosen_id:
            self.settle(exists=True)

    @property
    def policy(self) -> ParentClose:
        return self.event.options.parent_close

    @property
    def is_starting(self) -> bool:
        return self.exists is None

    @property
    def is_awaited(self) -> bool:
        """Whether a workflow that has returned waits for it."""
        return self.policy != "abandon" or self.is_starting

    def settle(self, *, exists: bool) -> None:
        """Take note that the child exists, or that it never will."""
        self.exists = exists
        if not self.known.done():
            self.known.set_result(None)

    def end(self) -> None:
        self.has_ended = True
        if self.is_starting:
            self.settle(exists=False)


_CANCELLED = dotted_name(WorkflowCancelled)
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
        self._children: dict[int, Child] = {}  # those that somebody awaits, and those that are starting
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

    def schedule_child(self, child: Child, future: CommandFuture, location: str) -> None:
        """Add the decision to start a child, whose outcome ends the future."""
        self._children[child.event.command] = child
        self.schedule(child.event, future, location)

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
        """Withdraw a decision that is not recorded yet, or decide to cancel it; an abandoned child is left alone.

        Return whether its future ends now; that of a child ends when the child has.
        """
        command, child = self._open[number], self._children.get(number)
        if child is not None and child.policy == "abandon":
            pass
        elif not command.recorded:
            self._withdraw(command, child)
        elif child is not None:
            self._wish(child, child.policy)
            if child.policy == "cancel":
                return False
        elif (cancel := _CANCELS.get(type(command.event))) is not None:
            self.decide(cancel(command=number))
        self._forget(number)
        return True

    def ask_child_to_cancel(self, child: Child) -> None:
        """Decide that a child is to cancel, unless that is decided already."""
        number = child.event.command
        command = next((one for one in self._new if one.event is child.event), None)
        if child.has_ended:
            return
        if command is None:
            self._wish(child, "cancel")
            return
        self._withdraw(command, child)
        if number in self.futures:
            self.futures[number].end_cancelled()
        self._forget(number)

    def _withdraw(self, command: Command, child: Child | None) -> None:
        command.withdrawn = True
        if child is not None:
            child.has_ended = True
            child.settle(exists=False)

    def _wish(self, child: Child, wish: ParentClose) -> None:
        """Decide what is to become of a child; of one that is just being started, as soon as it is."""
        if child.wish is None or (child.wish == "cancel" and wish == "terminate"):
            child.wish = wish
            if not child.is_starting:
                self._decide_wish(child)

    def _decide_wish(self, child: Child) -> None:
        self.decide(_wish_event(child))

    def _forget(self, number: int) -> None:
        """Await the outcome no more."""
        self.futures.pop(number, None)
        self.timers.pop(number, None)
        self._open.pop(number, None)
        child = self._children.get(number)
        if child is not None and not child.is_starting:
            del self._children[number]

    # Outcomes

    def expects(self, event: ResultEvent) -> bool:
        """Tell whether an outcome still means something: late and repeated ones do not."""
        if isinstance(event, TimerFired):
            return event.command in self.timers
        if event.command in self._children and self._children[event.command].is_starting:
            return True
        return event.command in self.futures and not isinstance(event, ChildStarted)

    def child_started(self, number: int) -> None:
        """Take note that a child with a chosen id exists."""
        child = self._children[number]
        child.settle(exists=True)
        if child.wish is not None:
            self._decide_wish(child)
        if number not in self.futures:
            del self._children[number]

    def complete(self, event: ResultEvent) -> None:
        """End the future of a command, if anybody awaits it."""
        future = self._close(event.command)
        if future is None:
            return
        if future.is_cancelling and not _answers_cancel(event):
            future.end_cancelled()
        else:
            future.set_result(getattr(event, "result", None))

    def fail(self, event: ActivityFailed | ChildFailed | MessageRefused) -> None:
        """End the future of a command with a failure; with a cancellation where that is what the code asked for."""
        child, failure = self._children.get(event.command), event.failure
        is_unwanted = child is not None and child.wish and (failure.type == _CANCELLED or child.is_starting)
        future = self._close(event.command)
        if future is None:
            return
        if is_unwanted or (future.is_cancelling and not _answers_cancel(event)):
            future.end_cancelled()
        else:
            future.set_exception(raisable(failure))

    def _close(self, number: int) -> CommandFuture | None:
        self._open.pop(number, None)
        child = self._children.pop(number, None)
        if child is not None:
            child.end()
        return self.futures.pop(number, None)

    def close_timer(self, number: int) -> DurableTimerHandle:
        """Return the handle of a timer that has fired; the command is open no more."""
        del self._open[number]
        return self.timers.pop(number)

    # What the machine asks

    def due_time(self, number: int) -> datetime | None:
        """Return when an open timer fires, None for what is none."""
        command = self._open.get(number)
        return command.event.fire_at if command is not None and isinstance(command.event, TimerStarted) else None

    def take_new(self) -> list[Command]:
        """Return what was decided since the last call, now recorded."""
        decided = [command for command in self._new if not command.withdrawn]
        self._new = []
        for command in decided:
            command.recorded = True
        return decided

    def open_events(self) -> list[CommandEvent]:
        """Return the recorded commands without an outcome: what a close leaves to be cancelled.

        In the place of a child that is just being started, and not wanted any more, what it is to be told.
        """
        events = {number: command.event for number, command in self._open.items()}
        for number, child in self._children.items():
            # One that was asked to cancel, and is to be terminated with its parent, is told the latter.
            if child.is_starting and child.wish is not None and not (number in events and child.policy == "terminate"):
                events[number] = _wish_event(child)
        return [events[number] for number in sorted(events)]

    @property
    def are_awaited(self) -> bool:
        """Whether something was started that a returned workflow waits for: all but abandoned children."""
        children = self._children
        return any(number not in children or children[number].is_awaited for number in self.futures)


def _answers_cancel(event: ResultEvent) -> bool:
    """Tell whether a child ended like this because of its cancellation, or in spite of it.

    One that had ended before it heard of it counts as cancelled, like a future of asyncio that is done when the task
    that awaits it is cancelled: the cancellation would be lost otherwise.
    """
    return getattr(event, "cancel_requested", False)


def _wish_event(child: Child) -> ChildCancelRequested:
    return ChildCancelRequested(command=child.event.command, terminate=child.wish == "terminate")


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

"""What the code of an instance decides, through the authoring layer, and where it may decide nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from datetime import UTC, timedelta
from functools import cached_property
from typing import Any

import msgspec

from django_workflows.exceptions import NotAllowedInWorkflowError, NotInWorkflowError
from django_workflows.failures import Failure

from . import events as ev
from .commands import Child, CommandFuture, Commands
from .exceptions_in_futures import raisable
from .loop import DurableTimerHandle, MachineDisposed, NumberedFuture, WorkflowLoop
from .steps import InstanceInfo


class Decisions:
    """The half of a machine that workflow code sees."""

    def __init__(self, info: InstanceInfo, loop: WorkflowLoop) -> None:
        self.info = info
        self.loop = loop
        self.now = info.started_at
        self.history_length = 0
        self.is_replaying = False
        self.closed = False
        self.captured: tuple[Context, dict[str, Any]] | None = None  # the context when it was captured last, and what
        self._commands = Commands()
        self._recorded: dict[int, ev.SideEffectRecorded] = {}  # those behind the event being replayed
        self._recorded_patches: set[str] = set()  # those in the history that is replayed
        self._patches: dict[str, bool] = {}  # what the code was told
        self._refuse: Callable[[str], Exception] | None = None  # set where the code may decide nothing

    @cached_property
    def _random(self) -> random.Random:
        return random.Random(self.info.execution_id)

    @property
    def random(self) -> random.Random:
        self.refuse_where_restricted("the random generator of the workflow")
        return self._random

    def next_command(self) -> int:
        """Return the number of the next decision; raises MachineDisposed in clean-up code of a disposed machine."""
        self.require_deciding("a decision of the workflow")
        return self._commands.next_number()

    def require_deciding(self, what: str) -> None:
        """Raise where the code may decide nothing: in a side effect, a query, a validator, or after disposal."""
        self.refuse_where_restricted(what)
        if self.closed:
            raise MachineDisposed

    def decide(self, event: ev.CommandEvent) -> None:
        """Take a decision that has no outcome."""
        self._commands.decide(event)

    def decide_and_wait(self, event: ev.CommandEvent, location: str = "") -> CommandFuture:
        """Take a decision and return the future of its outcome."""
        future = CommandFuture(loop=self.loop)
        self.loop.adopt(future)
        self._commands.schedule(event, future, location)
        return future

    def start_child(self, event: ev.ChildScheduled, location: str) -> tuple[Child, CommandFuture]:
        """Decide to start a child and return it with the future of its outcome."""
        future = CommandFuture(loop=self.loop)
        self.loop.adopt(future)
        # Without a creation number, which would shift those of the code's own futures in old histories.
        child = Child(event, NumberedFuture(loop=self.loop))
        self._commands.schedule_child(child, future, location)
        return child, future

    def cancel_child(self, child: Child) -> None:
        """Ask a child to cancel, whatever its parent_close says."""
        self.require_deciding("cancelling a child")
        self._commands.ask_child_to_cancel(child)

    def patched(self, patch: str, *, deprecated: bool = False) -> bool:
        """Tell whether this execution has a patch: if it asks for the first time while it runs, it has from then on."""
        self.require_deciding("a patch")
        if patch not in self._patches:
            self._patches[patch] = not self.is_replaying or patch in self._recorded_patches
            if not self.is_replaying:
                self.decide(ev.PatchRecorded(command=0, patch=patch, deprecated=deprecated))
        return self._patches[patch]

    def side_effect(self, encode: Callable[[], bytes]) -> msgspec.Raw:
        """Return the recorded value on replay; else run `encode` once and record what it returns or raises."""
        number = self.next_command()
        event = self._recorded.get(number)
        if event is None:
            # While replaying, this is a mismatch; the comparison after this event explains it.
            event = ev.SideEffectRecorded(command=number, value=ev.NULL)
            if not self.is_replaying:
                event = self._run_side_effect(event, encode)
        self.decide(event)
        if event.failure is not None:
            raise raisable(event.failure)
        return event.value

    def _run_side_effect(self, event: ev.SideEffectRecorded, encode: Callable[[], bytes]) -> ev.SideEffectRecorded:
        with self._restricted(_refused_in_side_effect):
            try:
                return msgspec.structs.replace(event, value=msgspec.Raw(encode()))
            except BaseException as error:
                # Rebuilt here as on replay, so that the code sees the same exception both times.
                return msgspec.structs.replace(event, failure=Failure.of(error))

    @contextmanager
    def _restricted(self, refuse: Callable[[str], Exception]) -> Iterator[None]:
        previous, self._refuse = self._refuse, refuse
        try:
            yield
        finally:
            self._refuse = previous

    def _only_reading(self, who: str) -> Any:
        return self._restricted(
            lambda what: NotAllowedInWorkflowError(
                f"expected {who} to read only, found one that uses {what}; use an update or a signal for changes"
            )
        )

    def refuse_where_restricted(self, what: str) -> None:
        """Raise in a side effect, a query or a validator."""
        if self._refuse is not None:
            raise self._refuse(what)

    def uuid_hex(self) -> str:
        return f"{self.random.getrandbits(128):032x}"

    def time(self) -> float:
        return self.now.timestamp()

    def start_timer_at(self, when: float, handle: DurableTimerHandle, name: str = "") -> None:
        if when == math.inf:
            return  # never fires, as in asyncio
        try:
            fire_at = (self.now + timedelta(seconds=when - self.time())).astimezone(UTC)
        except (OverflowError, ValueError):
            raise ValueError(
                f"expected a delay that ends before the year 10000, found {when - self.time():g} seconds"
            ) from None
        self._commands.start_timer(ev.TimerStarted(command=self.next_command(), fire_at=fire_at, name=name), handle)

    # What replay knows beforehand

    def expect_side_effects(self, events: Iterable[ev.SideEffectRecorded]) -> None:
        """Have the side effects up to the next input event return what is recorded."""
        self._recorded = {event.command: event for event in events}

    def expect_patches(self, patches: Iterable[str]) -> None:
        """Have the code find these patches, and no others, while it is replayed."""
        self._recorded_patches = set(patches)


def _refused_in_side_effect(what: str) -> Exception:
    return NotInWorkflowError(
        f"expected a side effect to be a plain function, found one that uses {what}; "
        "a side effect does not run again on replay, so do this before or after it"
    )

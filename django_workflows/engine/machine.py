"""The machine: one instance's code in memory, driven by events, answering with commands.

Every input event is applied alone: its effect on futures, buffers or the main task, then the loop until all coroutines
wait, then the decisions taken, in the order the code took them. Live and on replay this is the same path; on replay
the decisions are compared with those recorded behind the event. So it does not matter how events were batched.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from django_workflows.exceptions import ActivityError, NotInWorkflowError
from django_workflows.failures import Failure

from . import events as ev
from .asyncio_patches import install_patches
from .commands import Command, CommandFuture, Commands, waiting_location
from .ending import ContinueAsNewRequest, Ending
from .loop import DurableTimerHandle, MachineDisposed, NumberedTask, WorkflowLoop
from .replay import Block, blocks, compare, not_awaited
from .signals import SignalBuffers
from .steps import InstanceInfo, Step

__all__ = ["ContinueAsNewRequest", "Entry", "Machine", "MachineDisposed"]

Entry = Callable[[], Coroutine[Any, Any, bytes]]

install_patches()


class Machine:
    """Runs one instance's code.

    `entry` returns the main coroutine, which decodes its input, runs the workflow and returns its encoded result.
    """

    def __init__(
        self, info: InstanceInfo, entry: Entry, *, default_location: str = "", payload_limit: int | None = None
    ) -> None:
        self.info = info
        self.payload_limit = payload_limit
        self.now = info.started_at
        self.is_replaying = False
        self.in_side_effect = False
        self.history_length = 0
        self.closed = False
        self.loop = WorkflowLoop(self)  # type: ignore[abstract]  # the rest are refusals
        self.signals = SignalBuffers(self.loop.create_future)
        self._entry = entry
        self._default_location = default_location
        self._random = random.Random(info.execution_id)
        self._commands = Commands()
        self._ending = Ending(self._commands, self.loop)
        self._conditions: list[tuple[Callable[[], object], asyncio.Future[Any]]] = []
        self._recorded: dict[int, ev.SideEffectRecorded] = {}  # those behind the event being replayed
        self._context = contextvars.Context()

    # Driving the machine

    def step(self, inputs: Sequence[ev.InputEvent], now: datetime) -> Step:
        """Apply new input events and return what to record; `now` is the time the workflow will see."""
        step = Step(time=max(now, self.now), events=[])
        for event in inputs:
            if self.closed:
                break
            step.consumed += 1
            if self._accepts(event):
                step.events.append(event)
                step.events.extend(command.event for command in self._apply(event, step.time))
        return step

    def replay(self, history: Iterable[tuple[datetime, ev.Event]]) -> None:
        """Apply a stored history.

        Raises NondeterminismError where the code decides otherwise than it did; the machine is disposed then.
        """
        self.is_replaying = True
        try:
            for block in blocks(history):
                self._replay_block(block)
        except BaseException:
            self.dispose()
            raise
        self.is_replaying = False

    def open_commands(self) -> list[ev.CommandEvent]:
        """Return the recorded commands without an outcome: what a close leaves to be cancelled."""
        return self._commands.open_events()

    def dispose(self) -> None:
        """End the coroutines of a machine that leaves memory; their clean-up code cannot decide anything any more."""
        self.closed = True
        self.is_replaying = True  # keeps the logger silent
        with self._as_running_loop():
            self._ending.abandon()
        self.loop.clear()

    def _replay_block(self, block: Block) -> None:
        if not self._accepts(block.event):
            raise not_awaited(block, self._label(), self._waiting_location())
        self._recorded = {
            decision.command: decision for decision in block.decisions if isinstance(decision, ev.SideEffectRecorded)
        }
        self._ending.recorded = next(
            (decision for decision in block.decisions if isinstance(decision, ev.BackgroundTaskFailed)), None
        )
        attempted = self._apply(block.event, block.time)
        self._recorded = {}
        locations = {id(command.event): command.location for command in attempted}

        def locate(decision: ev.CommandEvent | None) -> str:
            return locations.get(id(decision)) or self._waiting_location()

        compare(block, [command.event for command in attempted], self._label(), locate)

    def _label(self) -> str:
        return f"{self.info.workflow} instance {self.info.instance_id!r}"

    def _waiting_location(self) -> str:
        main = self._ending.main
        return (waiting_location(main.get_coro()) if main is not None else "") or self._default_location

    # Applying one input event

    def _accepts(self, event: ev.InputEvent) -> bool:
        """Tell whether the event still means something: late and repeated outcomes do not."""
        match event:
            case ev.TimerFired():
                return event.command in self._commands.timers
            case ev.ResultEvent():
                return event.command in self._commands.futures
            case ev.InstanceStarted():
                return self._ending.main is None
            case ev.CancelRequested():
                return not self._ending.cancel_requested
        return True

    def _apply(self, event: ev.InputEvent, time: datetime) -> list[Command]:
        self.now = time
        self.history_length += 1
        self._ending.is_replaying = self.is_replaying
        with self._as_running_loop():
            self._context.run(self._deliver, event)
            self._run()
            decided = self._commands.take_new()
            closing = self._closing_event()
        if closing is not None:
            self.closed = True
            decided.append(Command(closing, ""))
        self.history_length += len(decided)
        return decided

    @contextmanager
    def _as_running_loop(self) -> Iterator[None]:
        previous, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self.loop)
        sys.set_asyncgen_hooks(self._ending.generator_started, None)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(previous)

    def _deliver(self, event: ev.InputEvent) -> None:
        match event:
            case ev.ActivityCompleted() | ev.ChildCompleted():
                self._commands.close_future(event.command).set_result(event.result)
            case ev.ActivityFailed() | ev.ChildFailed():
                self._commands.close_future(event.command).set_exception(raisable(event.failure))
            case ev.TimerFired():
                self.loop.run_handle(self._commands.close_timer(event.command))
            case ev.SignalReceived():
                self.signals.add(event.name, event.value)
            case ev.CancelRequested():
                self._ending.cancel(event.reason)
            case ev.InstanceStarted():
                self._start(event)

    def _start(self, event: ev.InstanceStarted) -> None:
        for signal in event.signals:
            self.signals.add(signal.name, signal.value)
        main = self.loop.create_task(self._entry(), name="main")
        assert isinstance(main, NumberedTask)
        self._ending.main = main
        if self._ending.cancel_requested:
            main.cancel()

    def _run(self) -> None:
        """Run until nothing more can happen: callbacks, then conditions, then what ending the main task entails."""
        while True:
            self.loop.run_ready()
            if self._ending.continue_request is not None:
                return
            if not self._wake_conditions() and not self._ending.advance():
                return

    def _wake_conditions(self) -> bool:
        """Wake the waiters whose predicates hold; return whether there were any."""
        if not self._conditions:
            return False
        waiting, self._conditions = self._conditions, []
        woken = False
        for predicate, future in waiting:
            if future.done():
                continue
            try:
                holds = bool(predicate())
            except BaseException as error:
                future.set_exception(_acceptable(error))
                woken = True
                continue
            if holds:
                future.set_result(None)
                woken = True
            else:
                self._conditions.append((predicate, future))
        return woken

    def _closing_event(self) -> ev.ClosingEvent | None:
        ending = self._ending
        command = self._commands.last_number + 1
        if ending.continue_request is not None:
            return ev.InstanceContinuedAsNew(
                command=command,
                input=msgspec.Raw(ending.continue_request.input),
                execution_id=self.uuid_hex(),
                signals=self.signals.unread(),
                version=ending.continue_request.version,
            )
        if not ending.is_over:
            return None
        if ending.failure is None:
            assert ending.result is not None
            return ev.InstanceCompleted(command=command, result=msgspec.Raw(ending.result))
        if isinstance(ending.failure, asyncio.CancelledError) and ending.cancel_requested:
            return ev.InstanceCancelled(command=command)
        return ev.InstanceFailed(command=command, failure=Failure.of(ending.failure))

    # What workflow code calls, through the authoring layer

    @property
    def random(self) -> random.Random:
        self._refuse_in_side_effect("the random generator of the workflow")
        return self._random

    def next_command(self) -> int:
        """Return the number of the next decision; raises MachineDisposed in clean-up code of a disposed machine."""
        if self.closed:
            raise MachineDisposed
        self._refuse_in_side_effect("a decision of the workflow")
        return self._commands.next_number()

    def decide_and_wait(self, event: ev.CommandEvent, location: str = "") -> CommandFuture:
        """Take a decision and return the future of its outcome."""
        future = CommandFuture(loop=self.loop)
        self.loop.adopt(future)
        self._commands.schedule(event, future, location)
        return future

    def side_effect(self, encode: Callable[[], bytes]) -> msgspec.Raw:
        """Return the recorded value on replay; else run `encode` once and record what it returns or raises."""
        number = self.next_command()
        event = self._recorded.get(number)
        if event is None:
            # While replaying, this is a mismatch; the comparison after this event explains it.
            event = ev.SideEffectRecorded(command=number, value=ev.NULL)
            if not self.is_replaying:
                event = self._run_side_effect(event, encode)
        self._commands.decide(event)
        if event.failure is not None:
            raise raisable(event.failure)
        return event.value

    def _run_side_effect(self, event: ev.SideEffectRecorded, encode: Callable[[], bytes]) -> ev.SideEffectRecorded:
        self.in_side_effect = True
        try:
            return msgspec.structs.replace(event, value=msgspec.Raw(encode()))
        except BaseException as error:
            # Rebuilt here as on replay, so that the code sees the same exception both times.
            return msgspec.structs.replace(event, failure=Failure.of(error))
        finally:
            self.in_side_effect = False

    def _refuse_in_side_effect(self, what: str) -> None:
        if self.in_side_effect:
            raise NotInWorkflowError(
                f"expected a side effect to be a plain function, found one that uses {what}; "
                "a side effect does not run again on replay, so do this before or after it"
            )

    def wait_until(self, predicate: Callable[[], object]) -> asyncio.Future[Any]:
        """Return a future that is done once the predicate holds; predicates run when all coroutines wait."""
        future = self.loop.create_future()
        self._conditions.append((predicate, future))
        return future

    def uuid_hex(self) -> str:
        return f"{self.random.getrandbits(128):032x}"

    # What the loop calls (LoopHost)

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

    def task_created(self, task: NumberedTask) -> None:
        self._ending.task_created(task)

    def task_dropped(self, task: NumberedTask, error: BaseException) -> None:
        self._ending.task_dropped(task, error)

    def callback_failed(self, error: BaseException) -> None:
        self._ending.callback_failed(error)

    def running_tasks(self) -> list[NumberedTask]:
        return list(self._ending.tasks.values())


def raisable(failure: Failure) -> Exception:
    """Return the exception of a failure in a form that a future takes and that no cancellation is mistaken for."""
    error = _acceptable(failure.rebuild())
    if isinstance(error, Exception):
        return error
    return ActivityError(failure.type, failure.message, failure.format())


def _acceptable(error: BaseException) -> BaseException:
    """Return the exception, or one in its place that can be thrown into a coroutine and caught there."""
    if isinstance(error, StopIteration | GeneratorExit):
        replacement = RuntimeError(f"{type(error).__name__}: {error}")
        replacement.__cause__ = error
        return replacement
    return error

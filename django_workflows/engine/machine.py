"""The machine: one instance's code in memory, driven by events, answering with commands.

Every input event is applied alone: its effect on futures, buffers or the main task, then the loop until all coroutines
wait, then the decisions taken, in the order the code took them. Live and on replay this is the same path; on replay
the decisions are compared with those recorded behind the event. So it does not matter how events were batched.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from django_workflows.exceptions import ActivityError, NondeterminismError
from django_workflows.failures import Failure

from . import events as ev
from .commands import Command, CommandFuture, calling_location
from .loop import DurableTimerHandle, NumberedTask, WorkflowLoop
from .steps import InstanceInfo, Step


class ContinueAsNewRequest(BaseException):
    """Raised by `workflow.continue_as_new()`; a BaseException so that `except Exception` lets it pass."""

    def __init__(self, input: bytes) -> None:
        self.input = input


class MachineDisposed(BaseException):
    """Raised into clean-up code that runs while its machine leaves memory."""


Entry = Callable[[], Coroutine[Any, Any, bytes]]


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
        self.random = random.Random(info.execution_id)
        self.is_replaying = False
        self.history_length = 0
        self.closed = False
        self.signals: dict[str, deque[msgspec.Raw]] = {}
        self.signal_waiters: dict[str, deque[asyncio.Future[Any]]] = {}
        self.loop = WorkflowLoop(self)
        self._entry = entry
        self._default_location = default_location
        self._main: asyncio.Task[bytes] | None = None
        self._next_command = 0
        self._new_commands: list[Command] = []
        self._futures: dict[int, CommandFuture] = {}  # activities and children without an outcome
        self._open: dict[int, Command] = {}  # the commands behind futures and timers
        self._attempted: list[Command] = []  # what the last input event led to
        self._timers: dict[int, DurableTimerHandle] = {}
        self._tasks: dict[int, NumberedTask] = {}
        self._failed_tasks: list[NumberedTask] = []
        self._conditions: list[tuple[Callable[[], object], asyncio.Future[Any]]] = []
        self._recorded: dict[int, ev.CommandEvent] = {}
        self._outcome: BaseException | bytes | None = None
        self._cancelled_rest = False
        self._cancel_requested = False
        self._continue_as_new: ContinueAsNewRequest | None = None
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
                step.events.extend(self._apply(event, step.time))
        return step

    def replay(self, history: Iterable[tuple[datetime, ev.Event]]) -> None:
        """Apply a stored history; raises NondeterminismError where the code decides otherwise than it did."""
        self.is_replaying = True
        block: list[ev.CommandEvent] = []
        pending: tuple[datetime, ev.InputEvent] | None = None
        for time, event in history:
            if isinstance(event, ev.InputEvent):
                self._replay_block(pending, block)
                pending, block = (time, event), []
            elif isinstance(event, ev.CommandEvent) and not isinstance(event, ev.InstanceTerminated):
                block.append(event)
        self._replay_block(pending, block)
        self.is_replaying = False

    def _replay_block(self, pending: tuple[datetime, ev.InputEvent] | None, block: list[ev.CommandEvent]) -> None:
        if pending is None:
            return
        time, event = pending
        self._recorded = {recorded.command: recorded for recorded in block}
        first = self.history_length + 2  # the number of the first decision behind this event
        if not self._accepts(event):
            raise NondeterminismError(
                f"event {first - 1} of {self._label()}: the history holds {event.type}{_of_command(event)}, but the code "
                "is not waiting for it. Was the workflow changed while this instance was open? "
                "Put the old code back, or guard the change."
            )
        attempted = self._apply(event, time)
        self._recorded = {}
        for offset in range(max(len(block), len(attempted))):
            expected = block[offset] if offset < len(block) else None
            actual = attempted[offset] if offset < len(attempted) else None
            if expected is None or actual is None or not expected.same_decision(actual):
                self._mismatch(first + offset, expected, actual)

    def _mismatch(self, sequence: int, expected: ev.CommandEvent | None, actual: ev.CommandEvent | None) -> None:
        location = self._location_of(actual)
        raise NondeterminismError(
            f"event {sequence} of {self._label()}: the history holds "
            f"{expected.describe() if expected else 'no further decision here'}, but the code decided "
            f"{actual.describe() if actual else 'nothing'}{f' at {location}' if location else ''}. "
            "Was the workflow changed while this instance was open? Put the old code back, or guard the change."
        )

    def _location_of(self, event: ev.CommandEvent | None) -> str:
        for command in self._attempted:
            if command.event is event and command.location:
                return command.location
        return self._default_location

    def _label(self) -> str:
        return f"{self.info.workflow} instance {self.info.instance_id!r}"

    # Applying one input event

    def _accepts(self, event: ev.InputEvent) -> bool:
        """Tell whether the event still means something: late and repeated outcomes do not."""
        match event:
            case ev.TimerFired():
                return event.command in self._timers
            case ev.ResultEvent():
                return event.command in self._futures
            case ev.InstanceStarted():
                return self._main is None
            case ev.CancelRequested():
                return not self._cancel_requested
        return True

    def _apply(self, event: ev.InputEvent, time: datetime) -> list[ev.CommandEvent]:
        self.now = time
        self.history_length += 1
        previous = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            self._context.run(self._deliver, event)
            self._run()
        finally:
            asyncio._set_running_loop(previous)
        decided = self._flush()
        self.history_length += len(decided)
        return decided

    def _deliver(self, event: ev.InputEvent) -> None:
        if isinstance(event, ev.ResultEvent):
            self._open.pop(event.command)
        match event:
            case ev.ActivityCompleted() | ev.ChildCompleted():
                self._futures.pop(event.command).set_result(event.result)
            case ev.ActivityFailed() | ev.ChildFailed():
                self._futures.pop(event.command).set_exception(_raisable(event.failure))
            case ev.TimerFired():
                self.loop.run_handle(self._timers.pop(event.command))
            case ev.SignalReceived():
                self._receive_signal(event.name, event.value)
            case ev.CancelRequested():
                self._cancel_requested = True
                if self._main is not None and not self._main.done():
                    self._main.cancel()
            case ev.InstanceStarted():
                for signal in event.signals:
                    self._receive_signal(signal.name, signal.value)
                self._main = self.loop.create_task(self._entry(), name="main")
                if self._cancel_requested:
                    self._main.cancel()

    def _receive_signal(self, name: str, value: msgspec.Raw) -> None:
        self.signals.setdefault(name, deque()).append(value)
        self.wake_signal_waiter(name)

    def wake_signal_waiter(self, name: str) -> None:
        """Wake the first coroutine that waits for a signal of this name."""
        waiters = self.signal_waiters.get(name)
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _run(self) -> None:
        """Run until nothing more can happen: callbacks, then conditions, then what ending the main task entails."""
        while True:
            self.loop.run_ready()
            if self._continue_as_new is not None:
                return
            if not self._wake_conditions() and not self._wind_down():
                return

    def _wake_conditions(self) -> bool:
        woken = False
        for entry in list(self._conditions):
            predicate, future = entry
            if future.done():
                self._conditions.remove(entry)
                continue
            try:
                holds = bool(predicate())
            except Exception as error:
                self._conditions.remove(entry)
                future.set_exception(error)
                woken = True
                continue
            if holds:
                self._conditions.remove(entry)
                future.set_result(None)
                woken = True
        return woken

    # Ending

    def _wind_down(self) -> bool:
        """Move towards the close where the main task has ended; return whether callbacks became ready."""
        if self._outcome is None:
            self._outcome = self._find_outcome()
        if self._outcome is None or self._cancelled_rest:
            return False
        if isinstance(self._outcome, bytes):
            if self._futures:
                return False  # a returned workflow waits for what it started and never awaited
            self._outcome = self._forgotten_failure(at_close=True) or self._outcome
        self._cancelled_rest = True
        for task in list(self._tasks.values()):
            task.cancel()
        return True

    def _find_outcome(self) -> BaseException | bytes | None:
        if self._main is None or not self._main.done():
            return self._forgotten_failure(at_close=False)
        if self._main.cancelled():
            return asyncio.CancelledError()
        return self._main.exception() or self._main.result()

    def _forgotten_failure(self, *, at_close: bool) -> BaseException | None:
        """Return the failure of a background task that nobody can await any more; it is the instance's own then."""
        for task in list(self._failed_tasks):
            if not task._log_traceback:
                self._failed_tasks.remove(task)  # somebody has retrieved it
            # Referenced by two lists, the loop variable and the call: nobody is left who could await it.
            elif at_close or sys.getrefcount(task) <= 4:
                self._failed_tasks.remove(task)
                return task.exception()
        return None

    def _closing_event(self) -> ev.ClosingEvent | None:
        command = self._next_command
        if self._continue_as_new is not None:
            return ev.InstanceContinuedAsNew(
                command=command,
                input=msgspec.Raw(self._continue_as_new.input),
                execution_id=self.uuid_hex(),
                signals=[ev.CarriedSignal(name, value) for name, queue in self.signals.items() for value in queue],
            )
        if self._outcome is None or not self._cancelled_rest or self._tasks:
            return None
        if isinstance(self._outcome, bytes):
            return ev.InstanceCompleted(command=command, result=msgspec.Raw(self._outcome))
        if isinstance(self._outcome, asyncio.CancelledError) and self._cancel_requested:
            return ev.InstanceCancelled(command=command)
        return ev.InstanceFailed(command=command, failure=Failure.of(self._outcome))

    def _flush(self) -> list[ev.CommandEvent]:
        decided: list[ev.CommandEvent] = []
        self._attempted = [command for command in self._new_commands if not command.withdrawn]
        self._new_commands = []
        for command in self._attempted:
            command.recorded = True
            decided.append(command.event)
        closing = self._closing_event()
        if closing is not None:
            self.closed = True
            decided.append(closing)
        return decided

    def open_commands(self) -> list[ev.CommandEvent]:
        """Return the recorded commands without an outcome: what a close leaves to be cancelled."""
        return [self._open[number].event for number in sorted(self._open)]

    def dispose(self) -> None:
        """Close the coroutines of a machine that leaves memory; their clean-up code cannot decide anything any more."""
        self.closed = True
        previous = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            for task in [*self._tasks.values()]:
                task._log_destroy_pending = False
                coroutine = task.get_coro()
                if coroutine is not None:
                    _close_quietly(coroutine)
        finally:
            asyncio._set_running_loop(previous)

    # What workflow code calls, through the authoring layer

    def next_command(self) -> int:
        if self.closed:
            raise MachineDisposed
        self._next_command += 1
        return self._next_command

    def decide(self, event: ev.CommandEvent) -> None:
        self._new_commands.append(Command(event, calling_location()))

    def decide_and_wait(self, event: ev.CommandEvent) -> CommandFuture:
        """Record a decision and return the future of its outcome."""
        self.decide(event)
        self._open[event.command] = self._new_commands[-1]
        future = CommandFuture(loop=self.loop)
        self.loop.adopt(future)
        future.machine, future.command = self, event.command
        self._futures[event.command] = future
        return future

    def cancel_command(self, number: int) -> None:
        """Withdraw a decision that is not recorded yet, or decide to cancel it."""
        self._futures.pop(number, None)
        self._timers.pop(number, None)
        command = self._open.pop(number)
        if not command.recorded:
            command.withdrawn = True
            return
        cancel: type[ev.CommandEvent]
        match command.event:
            case ev.ActivityScheduled():
                cancel = ev.ActivityCancelled
            case ev.ChildScheduled():
                cancel = ev.ChildCancelRequested
            case _:
                cancel = ev.TimerCancelled
        self._new_commands.append(Command(cancel(command=number), calling_location()))

    def side_effect(self, encode: Callable[[], bytes]) -> msgspec.Raw:
        """Return the recorded value on replay; else run `encode` once and record what it returns."""
        number = self.next_command()
        recorded = self._recorded.get(number)
        if isinstance(recorded, ev.SideEffectRecorded):
            value = recorded.value
        elif self.is_replaying:
            value = ev.NULL  # the comparison after this event explains the mismatch
        else:
            value = msgspec.Raw(encode())
        self.decide(ev.SideEffectRecorded(command=number, value=value))
        return value

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
        number = self.next_command()
        fire_at = self.now + timedelta(seconds=when - self.time())
        self._timers[number] = handle
        handle.on_cancel = lambda: self.cancel_command(number) if number in self._timers else None
        self.decide(ev.TimerStarted(command=number, fire_at=fire_at.astimezone(UTC), name=name))
        self._open[number] = self._new_commands[-1]

    def task_created(self, task: NumberedTask) -> None:
        self._tasks[task.number] = task
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, NumberedTask)
        self._tasks.pop(task.number, None)
        if task.cancelled():
            return
        # Reads the exception without `task.exception()`, which would mark it as retrieved.
        error = task._exception
        if isinstance(error, ContinueAsNewRequest):
            task.exception()
            self._continue_as_new = error
        elif error is not None and task is not self._main and not self._cancelled_rest:
            self._failed_tasks.append(task)

    def unhandled(self, message: str, exception: BaseException | None) -> None:
        """Fail the instance for an error in a bare callback, which no task can carry."""
        if exception is not None and self._outcome is None:
            self._outcome = exception


def _raisable(failure: Failure) -> BaseException:
    error = failure.rebuild()
    # A future refuses StopIteration, and a CancelledError would look like a cancellation of the workflow's own.
    if isinstance(error, StopIteration | asyncio.CancelledError):
        return ActivityError(failure.type, failure.message, failure.format())
    return error


def _close_quietly(coroutine: Any) -> None:
    try:
        coroutine.close()
    except BaseException:
        # Clean-up code that awaits, or that decides: neither has a meaning here, the instance lives on in its history.
        pass


def _of_command(event: ev.Event) -> str:
    return f" of command {event.command}" if isinstance(event, ev.ResultEvent) else ""

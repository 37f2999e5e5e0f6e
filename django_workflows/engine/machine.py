"""The machine: one instance's code in memory, driven by events, answering with commands.

Every input event is applied alone: its effect on futures, buffers or the main task, then the loop until all coroutines
wait, then the decisions taken, in the order the code took them. Live and on replay this is the same path; on replay
the decisions are compared with those recorded behind the event. So it does not matter how events were batched.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from django_workflows.exceptions import HistoryLimitExceeded, UpdateNotAnswered
from django_workflows.failures import Failure

from . import events as ev
from .asyncio_patches import install_patches
from .commands import Command, waiting_location
from .conditions import Conditions
from .decisions import Decisions
from .ending import ContinueAsNewRequest, Ending
from .handlers import Handlers, NoHandlers, Program, Work
from .loop import MachineDisposed, NumberedTask, WorkflowLoop
from .messages import Messages
from .replay import Block, blocks, compare, not_awaited
from .signals import SignalBuffers
from .steps import InstanceInfo, Step

__all__ = ["ContinueAsNewRequest", "Entry", "Machine", "MachineDisposed"]

Entry = Callable[[], Program]

install_patches()


class Machine(Decisions):
    """Runs one instance's code.

    `entry` decodes the input and returns what runs the workflow and returns its encoded result, with the handlers of
    its messages. `restore` puts back the context that was carried from the starter, into a context of the instance's
    own. `history_limit` is the length at which the execution fails, 0 for none.
    """

    def __init__(
        self, info: InstanceInfo, entry: Entry, *, options: ev.InstanceOptions | None = None,
        restore: Callable[[dict[str, Any]], None] = lambda context: None, default_location: str = "",
        payload_limit: int | None = None, history_limit: int = 0,
    ) -> None:  # fmt: skip
        loop = WorkflowLoop(self)  # type: ignore[abstract]  # the rest are refusals
        super().__init__(info, loop)
        self.options = options or ev.InstanceOptions()
        self.payload_limit = payload_limit
        self.suggest_at = 0
        self.signals = SignalBuffers()
        self.conditions = Conditions(loop.create_future)
        self._entry = entry
        self._restore = restore
        self._default_location = default_location
        self._history_limit = history_limit
        self._ending = Ending(self._commands, loop)
        self.messages = Messages(NoHandlers(info.workflow, "it has not begun"), self, self._ending, self.signals)
        self._context = contextvars.Context()

    # Driving the machine

    def step(self, inputs: Sequence[ev.InputEvent], now: datetime) -> Step:
        """Apply new input events and return what to record.

        `now` is the time that the workflow will see, unless that goes back or is before that of a timer that fires.
        """
        due = [self._commands.due_time(event.command) for event in inputs if isinstance(event, ev.TimerFired)]
        step = Step(time=max(now, self.now, *(time for time in due if time is not None)), events=[], rejected=[])
        with self._as_running_loop():
            for event in inputs:
                if self.closed:
                    break
                step.consumed += 1
                if (rejected := self._find_rejection(event, step.time)) is not None:
                    step.rejected.append(rejected)
                elif self._accepts(event):
                    step.events.append(event)
                    step.events.extend(command.event for command in self._apply(event, step.time))
                    step.events.extend(self._imposed_end(event))
        return step

    def replay(self, history: Iterable[tuple[datetime, ev.Event]]) -> None:
        """Apply a stored history.

        Raises NondeterminismError where the code decides otherwise than it did; the machine is disposed then.
        """
        history = list(history)
        self.expect_patches(event.patch for _, event in history if isinstance(event, ev.PatchRecorded))
        self.is_replaying = True
        try:
            with self._as_running_loop():
                for block in blocks(history):
                    self._replay_block(block)
        except BaseException:
            self.dispose()
            raise
        self.is_replaying = False

    def query(self, name: str, input: msgspec.Raw) -> bytes:
        """Return the encoded answer of a query handler, which may read the instance's state and nothing else.

        An instance that has not begun answers from the state in which it will.
        """
        handlers = self.messages.handlers if self._ending.main is not None else self._prepare()
        with self._as_running_loop(), self._only_reading("a query"):
            return self._context.copy().run(handlers.query, name, input)

    def _prepare(self) -> Handlers:
        self.is_replaying = True  # nothing of this happens: no side effect runs, nothing is logged
        with self._as_running_loop():
            program = self._context.run(self._enter)
        self.is_replaying = False
        return program.handlers

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
        self.expect_side_effects(event for event in block.decisions if isinstance(event, ev.SideEffectRecorded))
        self._ending.recorded = next(
            (decision for decision in block.decisions if isinstance(decision, ev.BackgroundTaskFailed)), None
        )
        attempted = self._apply(block.event, block.time)
        self.history_length = block.end
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
            case ev.ResultEvent():
                return self._commands.expects(event)
            case ev.InstanceStarted():
                return self._ending.main is None
            case ev.CancelRequested():
                return not self._ending.cancel_requested
        return True

    def _find_rejection(self, event: ev.InputEvent, time: datetime) -> tuple[str, Failure] | None:
        """Return the id of an update that is not accepted, and why; it will not be in the history."""
        if not isinstance(event, ev.UpdateRequested):
            return None
        before, self.now = self.now, time
        try:
            if not self._ending.is_running:
                raise UpdateNotAnswered(
                    f"update {event.name!r}: {self._label()} has returned and takes no more of them"
                )
            with self._only_reading("a validator"):
                self._context.copy().run(self.messages.handlers.check_update, event.name, event.input)
        except BaseException as error:
            return event.update_id, Failure.of(error)
        finally:
            self.now = before
        return None

    def _apply(self, event: ev.InputEvent, time: datetime) -> list[Command]:
        self.now = time
        self.history_length += 1
        if isinstance(event, ev.TerminateRequested):
            return []  # none of the code runs
        self._ending.is_replaying = self.is_replaying
        self._context.run(self._deliver, event)
        self._run()
        closing = self._closing_event() if self._ending.is_over else None
        decided = self._commands.take_new()
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
            case ev.ActivityFailed() | ev.ChildFailed() | ev.MessageRefused():
                self._commands.fail(event)
            case ev.TimerFired():
                self.loop.run_handle(self._commands.close_timer(event.command))
            case ev.ChildStarted():
                self._commands.child_started(event.command)
            case ev.ResultEvent():
                self._commands.complete(event)
            case ev.SignalReceived():
                self.messages.receive(ev.CarriedSignal(event.name, event.value))
            case ev.UpdateRequested():
                self.messages.accept(event)
            case ev.CancelRequested():
                self._ending.cancel(event.reason)
            case ev.InstanceStarted():
                self._start(event)

    def _start(self, event: ev.InstanceStarted) -> None:
        self.suggest_at = event.suggest_at
        program = self._enter()
        self.messages.handlers = program.handlers
        for signal in event.signals:
            self.messages.receive(signal)
        self._ending.start_main(partial(self._main, event.start_at, program.main))

    def _enter(self) -> Program:
        self._restore(self.options.context)
        return self._entry()

    async def _main(self, start_at: datetime | None, main: Work[bytes]) -> bytes:
        if start_at is not None:
            await asyncio.sleep((start_at - self.now).total_seconds())
        return await main()

    def _run(self) -> None:
        """Run until nothing more can happen: callbacks, then conditions, then what ending the main task entails."""
        while True:
            self.loop.run_ready()
            if self._ending.continue_request is not None:
                return
            if not self.conditions.wake() and not self._ending.advance():
                return

    # Closing

    def _closing_event(self) -> ev.ClosingEvent:
        ending = self._ending
        self.messages.fail_open_updates(self._not_answered)
        command = self._commands.last_number + 1
        if ending.continue_request is not None:
            return ev.InstanceContinuedAsNew(
                command=command,
                input=msgspec.Raw(ending.continue_request.input),
                execution_id=self.uuid_hex(),
                signals=self.messages.unread(),
                version=ending.continue_request.version,
            )
        if ending.failure is None:
            assert ending.result is not None
            return ev.InstanceCompleted(
                command=command, result=msgspec.Raw(ending.result), cancel_requested=ending.cancel_requested
            )
        if isinstance(ending.failure, asyncio.CancelledError) and ending.cancel_requested:
            return ev.InstanceCancelled(command=command)
        return self._failed_event(command, ending.failure)

    def _failed_event(self, command: int, error: BaseException) -> ev.InstanceFailed:
        cancel_requested = self._ending.cancel_requested
        failed = ev.InstanceFailed(command=command, failure=Failure.of(error), cancel_requested=cancel_requested)
        policy = self.options.policy
        # Nobody who asked for a cancellation wants another attempt, though the clean-up has failed.
        if policy is None or cancel_requested or not policy.may_retry(error, self.info.attempt):
            return failed
        return msgspec.structs.replace(
            failed,
            next_execution_id=self.uuid_hex(),
            next_start=self.now + policy.pause_after(error, self.info.attempt, self._random),
            signals=self.messages.unread(),
        )

    def _imposed_end(self, event: ev.InputEvent) -> list[ev.Event]:
        """Return the end that comes from outside the code, if there is one: none of the code runs for it."""
        closing: ev.ClosingEvent
        if isinstance(event, ev.TerminateRequested):
            closing = ev.InstanceTerminated(command=0, reason=event.reason)
        elif 0 < self._history_limit <= self.history_length and not self.closed:
            closing = ev.InstanceFailed(command=0, failure=Failure.of(self._too_long()))
        else:
            return []
        self.closed = True
        return [*self.messages.unanswered(self._not_answered), closing]

    def _too_long(self) -> HistoryLimitExceeded:
        return HistoryLimitExceeded(
            f"the history of {self._label()} has {self.history_length} events and HISTORY_LIMIT is "
            f"{self._history_limit}; let the workflow continue as new before, see info().continue_as_new_suggested"
        )

    def _not_answered(self) -> Failure:
        return Failure.of(UpdateNotAnswered(f"{self._label()} closed before it answered the update"))

    # What the loop calls (LoopHost)

    def task_created(self, task: NumberedTask) -> None:
        self._ending.task_created(task)

    def task_dropped(self, task: NumberedTask, error: BaseException) -> None:
        self._ending.task_dropped(task, error)

    def callback_failed(self, error: BaseException) -> None:
        self._ending.callback_failed(error)

    def running_tasks(self) -> list[NumberedTask]:
        return list(self._ending.tasks.values())

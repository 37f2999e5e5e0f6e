"""A runtime without a database: it feeds a machine, keeps its history, and replays that in every possible way.

Time is virtual. Activities run in the order they were scheduled, due timers fire in order of time and command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from django_workflows import registry
from django_workflows.authoring import propagation
from django_workflows.authoring.program import entry_of
from django_workflows.authoring.workflow import Workflow
from django_workflows.authoring.workflow_class import workflow_of
from django_workflows.engine import events as ev
from django_workflows.engine.machine import Machine
from django_workflows.engine.steps import InstanceInfo, Step
from django_workflows.exceptions import WorkflowCancelled
from django_workflows.failures import Failure
from django_workflows.payloads import decode, encode
from django_workflows.registry import WorkflowDefinition

START = datetime(2026, 1, 1, tzinfo=UTC)

History = list[tuple[datetime, ev.Event]]
Main = Workflow[Any, Any] | type | Callable[..., Coroutine[Any, Any, Any]]


def new_machine(main: Main, *args: Any, execution_id: str = "execution-1", attempt: int = 1) -> Machine:
    """Return a machine as a worker builds one; `main` is a workflow, or a bare function that nobody registered."""
    if isinstance(main, type):
        main = workflow_of(main)
    if isinstance(main, Workflow):
        definition = main.definition
    else:
        definition = WorkflowDefinition(main, "tests.main", None, "")
    info = InstanceInfo(
        instance_id="instance-1", execution_id=execution_id, workflow=definition.name, queue="default",
        started_at=START, attempt=attempt,
    )  # fmt: skip
    entry = entry_of(definition, definition.signature.encode_arguments(args, {}))
    options = main.options.for_instance() if isinstance(main, Workflow) else None
    return Machine(info, entry, options=options, restore=propagation.restore, default_location=definition.location)


class Run:
    """One instance, driven by hand or by `finish()`."""

    def __init__(
        self, main: Main, *args: Any, signals: tuple[ev.CarriedSignal, ...] = (), start: bool = True, attempt: int = 1
    ) -> None:
        self.main, self.args, self.attempt = main, args, attempt
        self.machine = new_machine(main, *args, attempt=attempt)
        self.now = START
        self.history: History = []
        self.rejected: dict[str, Failure] = {}
        self._updates = 0
        if start:
            self.send(ev.InstanceStarted(signals=list(signals)))

    def __repr__(self) -> str:
        return f"<Run {self.args} {[event.describe() for event in self.events]}>"

    # Driving by hand

    def send(self, *inputs: ev.InputEvent) -> Step:
        """Offer inputs as one batch, as one turn of a worker does."""
        step = self.machine.step(inputs, self.now)
        self.history += [(step.time, event) for event in step.events]
        self.rejected.update(step.rejected)
        return step

    def update(self, name: str, *args: Any) -> str:
        """Ask for an update and return its id."""
        update = self.next_update(name, *args)
        self.send(update)
        return update.update_id

    def next_update(self, name: str, *args: Any) -> ev.UpdateRequested:
        """Return an update with an id of its own, to be sent in a batch."""
        self._updates += 1
        return ev.UpdateRequested(f"update-{self._updates}", name, _call(args))

    def signal(self, name: str, value: Any = None) -> Step:
        return self.send(signal(name, value))

    def cancel(self, reason: str = "") -> Step:
        return self.send(ev.CancelRequested(reason))

    def complete(self, command: int, value: Any = None) -> Step:
        return self.send(completed(command, value))

    def fail(self, command: int, error: BaseException) -> Step:
        return self.send(ev.ActivityFailed(command=command, failure=Failure.of(error)))

    def fire(self, command: int) -> Step:
        return self.send(ev.TimerFired(command))

    def advance(self, seconds: float) -> None:
        """Move the clock and fire what falls due, each timer at its own time."""
        until = self.now + timedelta(seconds=seconds)
        while (due := self.next_timer()) is not None and due.fire_at <= until:
            self.now = max(self.now, due.fire_at)
            self.fire(due.command)
        self.now = until

    # Driving by itself

    def finish(self) -> Run:
        """Run activities and children, deliver messages, then fire timers, until it closes or waits for a message."""
        for _ in range(100_000):
            if not self.finish_one():
                return self
        raise AssertionError("the workflow goes on for ever")

    def finish_one(self) -> bool:
        """Run one activity, child or timer, or deliver a message; return whether there was any."""
        if self.closing is not None:
            return False
        if (work := self.next_work()) is not None:
            if isinstance(work, ev.ChildScheduled) and work.chosen_id:
                self.send(ev.ChildStarted(work.command))
            self.send(_outcome(work))
        elif (timer := self.next_timer()) is not None:
            self.now = max(self.now, timer.fire_at)
            self.fire(timer.command)
        else:
            return False
        return True

    def next_work(self) -> ev.NamedCommandEvent | ev.MessageCommand | None:
        work = (event for event in self.open() if isinstance(event, ev.NamedCommandEvent | ev.MessageCommand))
        return next(work, None)

    def next_timer(self) -> ev.TimerStarted | None:
        timers = [event for event in self.open() if isinstance(event, ev.TimerStarted)]
        return min(timers, key=lambda timer: (timer.fire_at, timer.command), default=None)

    def open(self) -> list[ev.CommandEvent]:
        return self.machine.open_commands()

    # Looking

    def query(self, name: str, *args: Any) -> Any:
        """Ask another machine that replays the history, as a handle does."""
        machine = replayed(self.main, self.args, self.history)
        try:
            return msgspec.json.decode(machine.query(name, _call(args)))
        finally:
            machine.dispose()

    def answer(self, update_id: str) -> Any:
        """Return what came of an update: the result, the type of the failure, or None while it is unanswered."""
        if update_id in self.rejected:
            return "rejected", self.rejected[update_id].type.rpartition(".")[2]
        for event in self.events:
            if isinstance(event, ev.UpdateCompleted) and event.update_id == update_id:
                return msgspec.json.decode(event.result)
            if isinstance(event, ev.UpdateFailed) and event.update_id == update_id:
                return "failed", event.failure.type.rpartition(".")[2]
        return None

    @property
    def events(self) -> list[ev.Event]:
        return [event for _, event in self.history]

    @property
    def types(self) -> list[str]:
        """The kinds of the events, without the words that all share."""
        return [event.type for event in self.events]

    @property
    def closing(self) -> ev.ClosingEvent | None:
        last = self.events[-1] if self.history else None
        return last if isinstance(last, ev.ClosingEvent) else None

    @property
    def result(self) -> Any:
        assert isinstance(self.closing, ev.InstanceCompleted), f"expected a result, found {self.closing}"
        return msgspec.json.decode(self.closing.result)

    @property
    def failure(self) -> Failure:
        assert isinstance(self.closing, ev.InstanceFailed), f"expected a failure, found {self.closing}"
        return self.closing.failure

    def scheduled(self) -> list[tuple[str, list[Any]]]:
        """The activities by short name, with their arguments."""
        return [
            (event.name.rpartition(".")[2], msgspec.json.decode(event.input)[0])
            for event in self.events
            if isinstance(event, ev.ActivityScheduled)
        ]


def run(main: Main, *args: Any) -> Run:
    """Run an instance until it closes or waits for a message, and check that its history replays."""
    finished = Run(main, *args).finish()
    assert_replays(finished)
    return finished


def encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode(value, what="a test's value"))


def signal(name: str, value: Any = None) -> ev.SignalReceived:
    return ev.SignalReceived(name, encoded(value))


def _call(args: tuple[Any, ...]) -> msgspec.Raw:
    return msgspec.Raw(encode([args, {}], what="a test's arguments"))


def completed(command: int, value: Any = None) -> ev.ActivityCompleted:
    return ev.ActivityCompleted(command, encoded(value))


def child_completed(command: int, value: Any = None, *, cancel_requested: bool = False) -> ev.ChildCompleted:
    return ev.ChildCompleted(command, msgspec.Raw(encode(value, what="a test's result")), cancel_requested)


def child_failed(command: int, error: Exception, *, cancel_requested: bool = False) -> ev.ChildFailed:
    return ev.ChildFailed(command=command, failure=Failure.of(error), cancel_requested=cancel_requested)


def child_cancelled(command: int) -> ev.ChildFailed:
    return child_failed(command, WorkflowCancelled("the child was cancelled"))


def refused(command: int, error: Exception) -> ev.MessageRefused:
    return ev.MessageRefused(command=command, failure=Failure.of(error))


def _outcome(work: ev.NamedCommandEvent | ev.MessageCommand) -> ev.ResultEvent:
    if isinstance(work, ev.ChildScheduled):
        return _child_outcome(work)
    if isinstance(work, ev.MessageCommand):
        return ev.MessageDelivered(work.command)
    assert isinstance(work, ev.ActivityScheduled)
    definition = registry.activities.get(work.name)
    assert definition is not None
    args, kwargs = definition.signature.decode_arguments(work.input)
    try:
        value = definition.function(*args, **kwargs)
    except Exception as error:
        return ev.ActivityFailed(command=work.command, failure=Failure.of(error))
    return ev.ActivityCompleted(work.command, msgspec.Raw(definition.signature.encode_result(value)))


def _child_outcome(work: ev.ChildScheduled) -> ev.ResultEvent:
    definition = registry.workflows.get(work.name)
    assert definition is not None
    args, _ = definition.signature.decode_arguments(work.input)
    child = Run(Workflow(definition), *args).finish()
    if isinstance(child.closing, ev.InstanceFailed):
        return ev.ChildFailed(command=work.command, failure=child.failure)
    return ev.ChildCompleted(work.command, msgspec.Raw(encode(child.result, what="a test's result")))


# Replaying


def assert_replays(ran: Run, *, most_cuts: int = 60) -> None:
    """Replay the history whole, and cut at each input event with the rest fed live: the decisions are the same."""
    history = [(time, _restored(event)) for time, event in ran.history]
    cuts = [number for number, (_, event) in enumerate(history) if isinstance(event, ev.InputEvent)]
    for cut in [*cuts[:: len(cuts) // most_cuts + 1], len(history)]:
        machine = replayed(ran.main, ran.args, history[:cut], attempt=ran.attempt)
        assert machine.history_length == cut
        for time, block in _blocks(history[cut:]):
            step = machine.step(block[:1], time)  # type: ignore[arg-type]
            assert [_shown(event) for event in step.events] == [_shown(event) for event in block]
            assert machine.history_length <= len(history)
        machine.dispose()


def replayed(main: Main, args: tuple[Any, ...], history: History, *, attempt: int = 1) -> Machine:
    machine = new_machine(main, *args, attempt=attempt)
    machine.replay(history)
    return machine


def _blocks(history: History) -> Iterator[tuple[datetime, list[ev.Event]]]:
    block: list[ev.Event] = []
    begun = START
    for time, event in history:
        if isinstance(event, ev.InputEvent):
            if block:
                yield begun, block
            begun, block = time, []
        block.append(event)
    if block:
        yield begun, block


def _restored(event: ev.Event) -> ev.Event:
    return ev.decode_event(event.type, ev.encode_event(event))


def _shown(event: ev.Event) -> Any:
    """Return the event for comparison, without what a traceback says about the road to it."""
    fields = decode(ev.encode_event(event), dict[str, Any], what="an event")
    if isinstance(event, ev.InstanceFailed | ev.SideEffectRecorded | ev.UpdateFailed) and event.failure is not None:
        # How deep the stack was when tasks that wait for each other were cancelled decides about the words of this one.
        is_exact = event.failure.type != "builtins.RecursionError"
        fields["failure"] = event.failure.type, event.failure.message if is_exact else ""
    return event.type, fields


async def forever() -> None:
    """Wait for nothing, as in `asyncio`."""
    await asyncio.Event().wait()


async def settle() -> None:
    """Let the other tasks run until they wait for something."""
    for _ in range(5):
        await asyncio.sleep(0)

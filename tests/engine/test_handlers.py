"""Signal handlers: tasks of their own, begun in the order of the signals, interleaved with `run` and each other."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from django_workflows import Receive, RetryPolicy, Signal, WorkflowClass, workflow
from django_workflows.engine import events as ev

from .activities import clean_up, echo
from .harness import START, Run, assert_replays, completed, forever, replayed, signal


@workflow
class Log(WorkflowClass):
    """Notes what happens, in order, and returns it once somebody says that it is done."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.done = False
        self.lock = asyncio.Lock()

    @workflow.signal
    def note(self, line: str) -> None:
        self.lines.append(line)

    @workflow.signal
    async def note_slowly(self, line: str) -> None:
        self.lines.append(f"{line} begins")
        await echo(line)
        self.lines.append(f"{line} ends")

    @workflow.signal
    async def note_alone(self, line: str) -> None:
        async with self.lock:
            await self.note_slowly(line)

    @workflow.signal
    async def note_when(self, line: str) -> None:
        await workflow.wait_condition(lambda: line in self.lines)
        self.lines.append(f"{line} seen")

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    async def run(self) -> list[Any]:
        self.lines.append("run")
        await workflow.wait_condition(lambda: self.done)
        return self.lines


def carried(name: str, value: Any = None) -> ev.CarriedSignal:
    event = signal(name, value)
    return ev.CarriedSignal(event.name, event.value)


# Order


def test_each_signal_reaches_its_handler_in_order() -> None:
    ran = Run(Log)
    ran.send(signal("note", "a"), signal("note", "b"))
    ran.signal("note", "c")
    ran.signal("finish")
    assert ran.result == ["run", "a", "b", "c"]
    assert_replays(ran)


def test_run_begins_before_the_handlers_of_signals_that_follow_its_start() -> None:
    ran = Run(Log, start=False)
    ran.send(ev.InstanceStarted(), signal("note", "a"), signal("finish"))
    assert ran.result == ["run", "a"]
    assert_replays(ran)


def test_handlers_of_carried_signals_begin_before_run() -> None:
    ran = Run(Log, signals=(carried("note", "a"), carried("note_slowly", "b"), carried("note", "c")))
    ran.send(completed(1), signal("finish"))
    assert ran.result == ["a", "b begins", "c", "run", "b ends"]
    assert_replays(ran)


def test_handlers_interleave_with_each_other() -> None:
    ran = Run(Log)
    ran.send(signal("note_slowly", "a"), signal("note_slowly", "b"))
    ran.send(completed(2), completed(1), signal("finish"))
    assert ran.result == ["run", "a begins", "b begins", "b ends", "a ends"]
    assert_replays(ran)


def test_a_lock_keeps_handlers_apart() -> None:
    ran = Run(Log)
    ran.send(signal("note_alone", "a"), signal("note_alone", "b"), signal("note_alone", "c"))
    ran.finish()
    ran.signal("finish")
    expected = [f"{line} {what}" for line in "abc" for what in ("begins", "ends")]
    assert ran.result == ["run", *expected]
    assert_replays(ran)


def test_a_handler_may_wait_for_a_condition_that_another_one_makes_true() -> None:
    ran = Run(Log)
    ran.send(signal("note_when", "a"), signal("note", "b"), signal("note", "a"), signal("finish"))
    assert ran.result == ["run", "b", "a", "a seen"]
    assert_replays(ran)


def test_batches_make_no_difference() -> None:
    inputs = [signal("note_slowly", "a"), signal("note", "b"), completed(1), signal("note_alone", "c"), completed(2)]
    apart, together = Run(Log), Run(Log)
    for event in (*inputs, signal("finish")):
        apart.send(event)
    together.send(*inputs, signal("finish"))
    assert apart.result == together.result
    assert apart.types == together.types


# Values


@dataclass
class Item:
    sku: str
    count: int = 1


@workflow
class Basket(WorkflowClass):
    def __init__(self) -> None:
        self.items: list[Item] = []

    @workflow.signal
    def add(self, item: Item) -> None:
        self.items.append(item)

    @workflow.signal
    def clear(self) -> None:
        self.items.clear()

    @workflow.query
    def count(self) -> int:
        return sum(item.count for item in self.items)

    async def run(self) -> None:
        await forever()


def test_values_are_decoded_to_the_annotation() -> None:
    ran = Run(Basket)
    ran.signal("add", {"sku": "book", "count": 3})
    assert ran.query("count") == 3


def test_a_handler_without_a_parameter_ignores_the_value() -> None:
    ran = Run(Basket)
    ran.send(signal("add", {"sku": "book"}), signal("clear", "whatever"))
    assert ran.query("count") == 0
    assert_replays(ran)


@pytest.mark.parametrize("value", [None, "text", {"sku": 1}, {"count": 2}])
def test_a_value_that_does_not_fit_is_kept_and_logged_once(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    ran = Run(Basket)
    with caplog.at_level(logging.WARNING):
        ran.send(signal("add", value), signal("add", {"sku": "pen"}))
        assert ran.query("count") == 1
        replayed(Basket, (), ran.history).dispose()
    assert [record.message[:20] for record in caplog.records] == ["signal 'add' skipped"]
    assert ran.types == ["InstanceStarted", "SignalReceived", "SignalReceived"]
    assert_replays(ran)


# Signals without a handler


extra = Signal("extra", int)


@workflow
class Mixed(WorkflowClass):
    def __init__(self) -> None:
        self.handled: list[int] = []

    @workflow.signal
    def number(self, value: int) -> None:
        self.handled.append(value)

    async def run(self) -> list[int]:
        return [await extra.receive(), *self.handled]


def test_a_signal_without_a_handler_is_kept_until_it_is_received() -> None:
    ran = Run(Mixed)
    ran.send(signal("number", 1), signal("unknown"), signal("extra", 2))
    assert ran.result == [2, 1]
    assert_replays(ran)


async def _receive() -> Any:
    return await Mixed.number.receive()


async def _receive_nowait() -> Any:
    return Mixed.number.receive_nowait()


async def _by_name() -> Any:
    return await Signal("number").receive()


async def _select() -> Any:
    return await workflow.select(Receive(Mixed.number))


async def _iterate() -> Any:
    async for value in Mixed.number:
        return value


@pytest.mark.parametrize("receive", [_receive, _receive_nowait, _by_name, _select, _iterate])
def test_a_signal_that_has_a_handler_cannot_be_received_as_well(receive: Any) -> None:
    class Confused(Mixed):
        async def run(self) -> list[int]:
            return [await receive()]

    Confused.__qualname__ = f"Confused{receive.__name__}"
    ran = Run(workflow(Confused))
    assert ran.failure.type.endswith("NotAllowedInWorkflowError")
    assert "expected a signal without a handler, found 'number'" in ran.failure.message


def test_a_function_may_receive_what_a_class_handles() -> None:
    async def main() -> int:
        return await Mixed.number.receive()

    ran = Run(main)
    ran.signal("number", 4)
    assert ran.result == 4
    assert_replays(ran)


# Ends


@workflow
class Leaving(WorkflowClass):
    """Returns at once, with handlers under way."""

    def __init__(self) -> None:
        self.left = False

    @workflow.signal
    async def work(self, what: str) -> None:
        if what == "fail":
            raise LookupError("no such thing")
        if what == "exit":
            raise SystemExit(3)
        try:
            await echo(what)
            if what == "fail later":
                raise LookupError("no such thing")
        except asyncio.CancelledError:
            await clean_up(what)
            raise

    @workflow.signal
    def leave(self) -> None:
        self.left = True

    @workflow.signal
    def give_up(self, what: str) -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == f"signal {what}":
                task.cancel()

    @workflow.signal
    def again(self) -> None:
        workflow.continue_as_new()

    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.left)
        return "left"


def test_a_workflow_that_returns_waits_for_running_handlers() -> None:
    ran = Run(Leaving)
    ran.send(signal("work", "a"), signal("leave"))
    assert ran.closing is None
    ran.complete(1)
    assert ran.result == "left"
    assert_replays(ran)


def test_a_signal_behind_the_return_is_not_handled() -> None:
    ran = Run(Leaving)
    ran.send(signal("work", "a"), signal("leave"), signal("work", "b"))
    assert ran.scheduled() == [("echo", ["a"])]
    ran.complete(1)
    assert ran.result == "left"
    assert_replays(ran)


@pytest.mark.parametrize("what", ["fail", "exit"])
def test_a_handler_that_raises_fails_the_instance(what: str) -> None:
    ran = Run(Leaving)
    ran.signal("work", what)
    assert ran.failure.type == {"fail": "builtins.LookupError", "exit": "builtins.SystemExit"}[what]
    assert_replays(ran)


def test_a_handler_that_raises_after_the_return_fails_the_instance() -> None:
    ran = Run(Leaving)
    ran.send(signal("work", "fail later"), signal("leave"), completed(1))
    assert ran.failure.type == "builtins.LookupError"
    assert_replays(ran)


def test_a_failure_cancels_the_other_handlers_and_waits_for_their_clean_up() -> None:
    ran = Run(Leaving)
    ran.send(signal("work", "a"), signal("work", "fail"))
    assert ran.closing is None
    ran.finish()
    assert ran.failure.type == "builtins.LookupError"
    assert ran.scheduled() == [("echo", ["a"]), ("clean_up", ["a"])]
    assert_replays(ran)


def test_cancelling_the_instance_lets_handlers_clean_up() -> None:
    ran = Run(Leaving)
    ran.signal("work", "a")
    ran.cancel()
    ran.finish()
    assert isinstance(ran.closing, ev.InstanceCancelled)
    assert ran.scheduled() == [("echo", ["a"]), ("clean_up", ["a"])]
    assert_replays(ran)


def test_a_handler_that_another_one_cancels_ends_alone() -> None:
    ran = Run(Leaving)
    ran.send(signal("work", "a"), signal("give_up", "work"))
    ran.finish()
    ran.signal("leave")
    assert ran.result == "left"
    assert_replays(ran)


# Continue as new


def test_a_handler_may_continue_as_new() -> None:
    ran = Run(Leaving)
    ran.signal("again")
    assert isinstance(ran.closing, ev.InstanceContinuedAsNew)
    assert_replays(ran)


def test_signals_whose_handlers_have_not_begun_go_to_the_next_execution() -> None:
    ran = Run(Leaving, signals=(carried("other", 1), carried("again"), carried("work", "a"), carried("leave")))
    assert isinstance(ran.closing, ev.InstanceContinuedAsNew)
    assert [found.name for found in ran.closing.signals] == ["work", "leave", "other"]
    assert_replays(ran)
    ran.machine.dispose()


def test_all_handlers_finished_tells_when_it_is_safe_to_continue_as_new() -> None:
    @workflow
    class Patient(Leaving):
        async def run(self) -> str:
            await workflow.wait_condition(lambda: self.left)
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new()

    ran = Run(Patient)
    ran.send(signal("work", "a"), signal("leave"), signal("work", "b"))
    ran.complete(1)
    assert ran.closing is None
    ran.complete(2)
    assert isinstance(ran.closing, ev.InstanceContinuedAsNew)
    assert_replays(ran)


def test_a_handler_that_continues_as_new_after_the_return_does_so() -> None:
    @workflow
    class Late(Leaving):
        @workflow.signal
        async def work(self, what: str) -> None:
            await echo(what)
            workflow.continue_as_new()

    ran = Run(Late)
    ran.send(signal("work", "a"), signal("leave"), completed(1))
    assert isinstance(ran.closing, ev.InstanceContinuedAsNew)
    assert_replays(ran)


# Retries of the workflow


def test_what_a_failed_attempt_has_not_seen_goes_to_the_next_one() -> None:
    @workflow(retry=RetryPolicy(max_attempts=2))
    class Failing(Leaving):
        async def run(self) -> str:
            await workflow.wait_condition(lambda: self.left)
            raise LookupError("no such thing")

    ran = Run(Failing)
    ran.send(signal("other", 1), signal("leave"))
    assert isinstance(ran.closing, ev.InstanceFailed)
    assert [found.name for found in ran.closing.signals] == ["other"]
    assert_replays(ran)


def test_handlers_are_there_during_the_pause_before_another_attempt() -> None:
    ran = Run(Log, start=False)
    ran.send(ev.InstanceStarted(signals=[carried("note", "a")], start_at=START + timedelta(seconds=10)))
    ran.signal("note", "b")
    ran.advance(10)
    ran.signal("finish")
    assert ran.result == ["a", "b", "run"]
    assert_replays(ran)

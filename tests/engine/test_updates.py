"""Updates: validated, accepted, handled like signals, and answered with what the handler returns or raises."""

from __future__ import annotations

import asyncio
import contextvars
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from django_workflows import NondeterminismError, WorkflowClass, activity, workflow
from django_workflows.engine import events as ev
from django_workflows.exceptions import UnknownHandlerError

from .activities import CardDeclined, clean_up, decline, echo
from .harness import Run, assert_replays, completed, forever, replayed, signal

visitor = contextvars.ContextVar("visitor", default="nobody")


@activity
def price(sku: str) -> int:
    return len(sku)


@workflow
class Cart(WorkflowClass):
    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.closes_at = workflow.now() + timedelta(hours=1)
        self.closed = False

    @workflow.update
    async def add(self, sku: str, count: int = 1) -> int:
        cents = await price(sku)
        self.items[sku] = self.items.get(sku, 0) + count * cents
        return sum(self.items.values())

    @add.validator
    def check_add(self, sku: str, count: int = 1) -> None:
        if workflow.now() > self.closes_at:
            raise ValueError("too late")
        if count < 1:
            raise ValueError(f"expected at least one {sku}, found {count}")

    @workflow.update
    def merge(self, items: dict[str, int]) -> dict[str, int]:
        self.items |= items
        return self.items

    @merge.validator
    def check_merge(self, items: dict[str, int]) -> None:
        visitor.set("the validator")
        items.clear()

    @workflow.update
    def clear(self) -> None:
        self.items.clear()

    @workflow.update
    async def pay(self, how: str) -> str:
        match how:
            case "declined":
                await decline("no money")
            case "broken":
                raise CardDeclined("here", 3)
            case "unstorable":
                return object()  # type: ignore[return-value]
            case "exit":
                raise SystemExit("out")
            case "again":
                workflow.continue_as_new()
            case "given up":
                task = asyncio.create_task(asyncio.sleep(60))
                await asyncio.sleep(0)
                task.cancel()
                await task
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await clean_up(how)
            raise
        return visitor.get()

    @workflow.query
    def content(self) -> dict[str, int]:
        return self.items

    @workflow.signal
    def close(self) -> None:
        self.closed = True

    async def run(self) -> dict[str, int]:
        await workflow.wait_condition(lambda: self.closed)
        return self.items


# Answers


def test_the_caller_gets_what_the_handler_returns() -> None:
    ran = Run(Cart)
    update = ran.update("add", "book")
    assert ran.answer(update) is None
    ran.finish()
    assert ran.answer(update) == 4
    assert ran.types[1:] == ["UpdateRequested", "ActivityScheduled", "ActivityCompleted", "UpdateCompleted"]
    assert_replays(ran)


def test_a_plain_handler_answers_at_once() -> None:
    ran = Run(Cart)
    assert ran.answer(ran.update("merge", {"pen": 2})) == {"pen": 2}
    assert ran.types[1:] == ["UpdateRequested", "UpdateCompleted"]
    assert_replays(ran)


def test_updates_interleave_and_are_answered_in_the_order_in_which_they_end() -> None:
    ran = Run(Cart)
    first, second = ran.update("add", "book"), ran.update("add", "pen", 2)
    ran.send(completed(2, 3))
    assert (ran.answer(first), ran.answer(second)) == (None, 6)
    ran.send(completed(1, 4))
    assert ran.answer(first) == 10
    assert_replays(ran)


def test_updates_and_signals_in_one_batch_are_taken_in_order() -> None:
    ran = Run(Cart)
    ran.send(ran.next_update("merge", {"a": 1}), ran.next_update("clear"), ran.next_update("merge", {"b": 2}))
    assert [ran.answer(f"update-{number}") for number in (1, 2, 3)] == [{"a": 1}, None, {"b": 2}]
    ran.signal("close")
    assert ran.result == {"b": 2}
    assert_replays(ran)


@pytest.mark.parametrize(
    ("how", "failure"),
    [
        ("declined", "CardDeclined"),
        ("broken", "CardDeclined"),
        ("unstorable", "PayloadError"),
        ("given up", "CancelledError"),
    ],
)
def test_what_the_handler_raises_fails_the_update_and_not_the_instance(how: str, failure: str) -> None:
    ran = Run(Cart)
    update = ran.update("pay", how)
    ran.finish()
    assert ran.answer(update) == ("failed", failure)
    ran.signal("close")
    assert ran.result == {}
    assert_replays(ran)


def test_an_exit_in_a_handler_fails_the_instance() -> None:
    ran = Run(Cart)
    update = ran.update("pay", "exit")
    assert ran.failure.type == "builtins.SystemExit"
    assert ran.answer(update) == ("failed", "UpdateNotAnswered")
    assert_replays(ran)


# Rejection


def test_what_the_validator_raises_rejects_the_update_and_leaves_nothing_in_the_history() -> None:
    ran = Run(Cart)
    rejected, accepted = ran.update("add", "book", 0), ran.update("add", "book", 1)
    assert ran.answer(rejected) == ("rejected", "ValueError")
    assert ran.rejected[rejected].message == "expected at least one book, found 0"
    ran.finish()
    assert ran.answer(accepted) == 4
    assert ran.types.count("UpdateRequested") == 1
    assert_replays(ran)


def test_a_step_that_only_rejects_records_nothing() -> None:
    ran = Run(Cart)
    step = ran.send(ran.next_update("add", "book", 0))
    assert (step.events, step.consumed) == ([], 1)


@pytest.mark.parametrize(
    ("name", "args", "failure"),
    [
        ("unknown", (), "UnknownHandlerError"),
        ("content", (), "UnknownHandlerError"),
        ("add", (), "PayloadError"),
        ("add", ("book", "many"), "PayloadError"),
    ],
)
def test_what_the_class_cannot_handle_is_rejected(name: str, args: tuple[Any, ...], failure: str) -> None:
    ran = Run(Cart)
    assert ran.answer(ran.update(name, *args)) == ("rejected", failure)
    assert ran.types == ["InstanceStarted"]


def test_unknown_names_are_rejected_with_the_names_there_are() -> None:
    ran = Run(Cart)
    rejected = ran.update("ad")
    assert ran.rejected[rejected].message == (
        "expected a handler of update 'ad' in the workflow engine.Cart, found add, clear, merge, pay"
    )


def test_a_function_rejects_every_update() -> None:
    async def main() -> None:
        await asyncio.sleep(1)

    ran = Run(main)
    rejected = ran.update("add", "book")
    assert "found that it is a function, not a class" in ran.rejected[rejected].message


def test_a_validator_sees_the_time_of_the_step() -> None:
    ran = Run(Cart)
    ran.now += timedelta(hours=2)
    assert ran.rejected[ran.update("add", "book")].message == "too late"
    assert ran.query("content") == {}


def test_a_validator_leaks_nothing_through_arguments_or_context() -> None:
    ran = Run(Cart)
    assert ran.answer(ran.update("merge", {"pen": 2})) == {"pen": 2}
    update = ran.update("pay", "later")
    ran.finish()
    assert ran.answer(update) == "nobody"
    assert_replays(ran)


def _activity(self: Any) -> None:
    asyncio.ensure_future(echo(1)).done()


def _task(self: Any) -> None:
    asyncio.create_task(asyncio.sleep(0))  # noqa: RUF006


def _timer(self: Any) -> None:
    asyncio.get_running_loop().call_later(1, print)


def _attributes(self: Any) -> None:
    workflow.set_attributes(a=1)


def _side_effect(self: Any) -> None:
    workflow.side_effect(lambda: 1)


def _random(self: Any) -> None:
    workflow.random()


def _uuid(self: Any) -> None:
    workflow.uuid7()


def _patch(self: Any) -> None:
    workflow.patched("a patch")


def _again(self: Any) -> None:
    workflow.continue_as_new()


def _exit(self: Any) -> None:
    raise SystemExit("out")


@pytest.mark.parametrize(
    "check", [_activity, _task, _timer, _attributes, _side_effect, _random, _uuid, _patch, _again, _exit]
)
def test_a_validator_that_decides_something_rejects_the_update(check: Any) -> None:
    def change(self: Any) -> None: ...

    async def run(self: Any) -> None:
        await asyncio.sleep(60)

    update = workflow.update(change)
    update.validator(check)
    ran = Run(workflow(type(f"Deciding{check.__name__}", (), {"change": update, "check": check, "run": run})))
    rejected = ran.update("change")
    expected = "SystemExit" if check is _exit else "NotAllowedInWorkflowError"
    assert ran.answer(rejected) == ("rejected", expected)
    assert ran.types == ["InstanceStarted", "TimerStarted"]
    ran.finish()
    assert ran.result is None
    assert_replays(ran)


# The end of the instance


def test_a_workflow_that_returns_waits_for_the_answer() -> None:
    ran = Run(Cart)
    update = ran.update("add", "book")
    ran.signal("close")
    assert ran.closing is None
    ran.finish()
    assert ran.answer(update) == 4
    assert ran.result == {}, "the result is what was returned then"
    assert_replays(ran)


def test_an_update_behind_the_return_is_refused() -> None:
    ran = Run(Cart)
    ran.update("add", "book")
    ran.signal("close")
    assert ran.answer(ran.update("clear")) == ("rejected", "UpdateNotAnswered")
    ran.finish()
    assert ran.result == {}, "the result is what was returned then"
    assert_replays(ran)


@workflow
class Abrupt(Cart):
    @workflow.signal
    def crash(self) -> None:
        raise LookupError("no such thing")

    @workflow.signal
    def again(self) -> None:
        workflow.continue_as_new()


@pytest.mark.parametrize(
    ("end", "closing"),
    [
        (signal("crash"), ev.InstanceFailed),
        (signal("again"), ev.InstanceContinuedAsNew),
        (ev.CancelRequested(), ev.InstanceCancelled),
        (ev.TerminateRequested("parent closed"), ev.InstanceTerminated),
    ],
)
def test_unanswered_updates_fail_in_the_closing_step(end: ev.InputEvent, closing: type[ev.ClosingEvent]) -> None:
    ran = Run(Abrupt)
    updates = [ran.update("add", "book"), ran.update("add", "pen")]
    ran.send(end)
    assert isinstance(ran.closing, closing)
    assert [ran.answer(update) for update in updates] == [("failed", "UpdateNotAnswered")] * 2
    assert_replays(ran)


def test_an_update_that_cleans_up_when_the_instance_fails_is_not_answered() -> None:
    ran = Run(Abrupt)
    update = ran.update("pay", "later")
    ran.signal("crash")
    assert (ran.closing, ran.answer(update)) == (None, None)
    ran.finish()
    assert ran.answer(update) == ("failed", "UpdateNotAnswered")
    assert ran.failure.type == "builtins.LookupError"
    assert_replays(ran)


def test_a_handler_that_continues_as_new_is_not_answered() -> None:
    ran = Run(Cart)
    update = ran.update("pay", "again")
    assert isinstance(ran.closing, ev.InstanceContinuedAsNew)
    assert ran.answer(update) == ("failed", "UpdateNotAnswered")
    assert_replays(ran)


def test_updates_behind_the_close_are_left_for_the_next_execution() -> None:
    ran = Run(Cart)
    step = ran.send(ran.next_update("pay", "again"), ran.next_update("clear"))
    assert step.consumed == 1


def test_an_update_that_arrives_with_the_start_finds_a_running_instance() -> None:
    ran = Run(Cart, start=False)
    ran.send(ev.InstanceStarted(), ran.next_update("merge", {"a": 1}))
    assert ran.answer("update-1") == {"a": 1}
    assert_replays(ran)


# Changed code


def test_answers_that_change_places_are_nondeterministic() -> None:
    ran = Run(Cart)
    ran.send(ran.next_update("merge", {"a": 1}), ran.next_update("merge", {"a": 2}))
    history = list(ran.history)
    places = [number for number, (_, event) in enumerate(history) if isinstance(event, ev.UpdateCompleted)]
    ids = [event.update_id for _, event in history if isinstance(event, ev.UpdateRequested)]
    for place, update_id in zip(places, reversed(ids), strict=True):
        time, event = history[place]
        history[place] = (time, msgspec.structs.replace(event, update_id=update_id))
    with pytest.raises(NondeterminismError, match="UpdateCompleted of update update-"):
        replayed(Cart, (), history)


def test_a_handler_that_is_gone_blocks_the_instances_that_used_it() -> None:
    class Shrunk(WorkflowClass):
        async def run(self) -> None:
            await forever()

    ran = Run(Cart)
    ran.update("clear")
    with pytest.raises(UnknownHandlerError, match="expected a handler of update 'clear'"):
        replayed(workflow(Shrunk), (), ran.history)

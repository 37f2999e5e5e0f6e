"""Retries of whole workflows: a failed execution names the next one of its chain, and when it begins."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from django_workflows import RetryPolicy, Signal, workflow
from django_workflows.engine import events as ev

from .activities import CardDeclined, clean_up, decline, echo
from .harness import START, Run, assert_replays, child_failed, completed, signal

number = Signal("number", int)
SECONDS = RetryPolicy(
    max_attempts=4, initial_interval=timedelta(seconds=10), backoff=3, max_interval=timedelta(hours=1)
)


@workflow(name="retries.engine.failing", retry=SECONDS)
async def failing(message: str = "no") -> None:
    await decline(message)


@workflow(name="retries.engine.listening", retry=SECONDS)
async def listening() -> int:
    value = await number.receive()
    if value < 0:
        raise CardDeclined(str(value))
    return value


def failed(ran: Run) -> ev.InstanceFailed:
    assert isinstance(ran.closing, ev.InstanceFailed)
    assert_replays(ran)
    return ran.closing


@pytest.mark.parametrize(("attempt", "pause"), [(1, 10), (2, 30), (3, 90)])
def test_the_pauses_are_those_of_the_policy_to_the_microsecond(attempt: int, pause: int) -> None:
    ran = Run(failing, attempt=attempt)
    ran.now += timedelta(microseconds=123_457)
    ran.finish()
    closing = failed(ran)
    assert len(closing.next_execution_id) == 32
    assert closing.next_start == ran.now + timedelta(seconds=pause)


def test_the_last_attempt_names_no_other() -> None:
    closing = failed(Run(failing, attempt=4).finish())
    assert (closing.next_execution_id, closing.next_start) == ("", None)


def test_without_a_policy_there_is_one_attempt() -> None:
    @workflow(name="retries.engine.once")
    async def once() -> None:
        await decline()

    assert failed(Run(once).finish()).next_execution_id == ""


def test_the_policy_of_a_call_takes_the_place_of_the_definitions() -> None:
    never, often = failing.using(retry=None), failing.using(retry=RetryPolicy(initial_interval=timedelta(minutes=1)))
    assert failed(Run(never).finish()).next_execution_id == ""
    assert failed(Run(often, attempt=1000).finish()).next_execution_id != ""


@pytest.mark.parametrize("refused", [CardDeclined, "CardDeclined", Exception])
def test_what_is_not_retryable_is_not_retried(refused: Any) -> None:
    ran = Run(failing.using(retry=RetryPolicy(non_retryable=(refused,))))
    assert failed(ran.finish()).next_execution_id == ""


def test_an_exception_may_ask_for_the_pause_or_for_none_at_all() -> None:
    @workflow(name="retries.engine.asking", retry=SECONDS)
    async def asking(name: str, value: Any) -> None:
        error = CardDeclined("later")
        setattr(error, name, value)
        raise error

    assert failed(Run(asking, "next_retry_delay", 7)).next_start == START + timedelta(seconds=7)
    assert failed(Run(asking, "non_retryable", True)).next_execution_id == ""


def test_jitter_is_the_same_on_replay() -> None:
    ran = Run(failing.using(retry=RetryPolicy(jitter=1.0, initial_interval=timedelta(seconds=10)))).finish()
    start = failed(ran).next_start
    assert start is not None
    assert START < start < START + timedelta(seconds=10)


def test_a_cancelled_execution_is_not_retried() -> None:
    ran = Run(listening)
    ran.cancel()
    assert ran.types[-1] == "InstanceCancelled"


def test_nor_is_one_whose_clean_up_failed() -> None:
    @workflow(name="retries.engine.untidy", retry=SECONDS)
    async def untidy() -> None:
        try:
            await echo()
        finally:
            raise CardDeclined("in clean-up")

    ran = Run(untidy)
    ran.cancel()
    assert failed(ran).next_execution_id == ""


def test_nor_is_a_cancellation_that_nobody_asked_for() -> None:
    @workflow(name="retries.engine.lost", retry=SECONDS)
    async def lost() -> None:
        task = asyncio.create_task(number.receive())
        await asyncio.sleep(0)
        task.cancel()
        await task

    assert failed(Run(lost)).next_execution_id == ""


def test_of_an_exception_group_every_member_must_permit_it() -> None:
    @workflow(name="retries.engine.grouped", retry=RetryPolicy(non_retryable=(LookupError,)))
    async def grouped(lookup: bool) -> None:
        errors: list[Exception] = [CardDeclined("no"), KeyError("no") if lookup else ValueError("no")]
        raise ExceptionGroup("both", errors)

    assert failed(Run(grouped, False)).next_execution_id != ""
    assert failed(Run(grouped, True)).next_execution_id == ""


def test_a_child_that_failed_for_good_lets_its_parent_try_again() -> None:
    @workflow(name="retries.engine.parent", retry=SECONDS)
    async def parent() -> None:
        await failing()

    ran = Run(parent)
    ran.send(child_failed(1, CardDeclined("for good")))
    assert failed(ran).next_execution_id != ""


def test_signals_that_were_not_received_are_inherited() -> None:
    ran = Run(listening)
    ran.send(ev.SignalReceived("other"))
    ran.signal("number", -1)
    assert [one.name for one in failed(ran).signals] == ["other"]


# The next attempt


def start_later(ran: Run, seconds: float) -> None:
    ran.send(ev.InstanceStarted(start_at=ran.now + timedelta(seconds=seconds)))


def test_its_code_runs_when_the_pause_is_over_and_knows_the_attempt() -> None:
    @workflow(name="retries.engine.telling", retry=SECONDS)
    async def telling() -> list[float]:
        await echo()
        return [workflow.info().attempt, workflow.time() - START.timestamp()]

    ran = Run(telling, start=False, attempt=2)
    start_later(ran, 30)
    assert ran.types == ["InstanceStarted", "TimerStarted"]
    timer = ran.next_timer()
    assert timer is not None
    assert timer.fire_at == START + timedelta(seconds=30)
    ran.finish()
    assert ran.result == [2, 30]
    assert_replays(ran)


def test_where_the_pause_is_over_before_it_begins_it_runs_at_once() -> None:
    ran = Run(listening, start=False, attempt=2)
    start_later(ran, -5)
    ran.signal("number", 3)
    assert ran.types == ["InstanceStarted", "SignalReceived", "InstanceCompleted"]
    assert_replays(ran)


def test_signals_that_come_during_the_pause_are_kept() -> None:
    ran = Run(listening, start=False, attempt=2)
    start_later(ran, 30)
    ran.signal("number", 3)
    assert ran.closing is None
    ran.advance(30)
    assert ran.result == 3
    assert_replays(ran)


def test_cancelled_during_the_pause_it_closes_and_its_code_never_runs() -> None:
    ran = Run(failing, start=False, attempt=2)
    start_later(ran, 30)
    ran.cancel()
    assert ran.types == [
        "InstanceStarted", "TimerStarted", "CancelRequested", "TimerCancelled", "InstanceCancelled",
    ]  # fmt: skip
    assert_replays(ran)


def test_cancelled_before_the_pause_begins_too() -> None:
    ran = Run(failing, start=False, attempt=2)
    ran.send(ev.CancelRequested(), ev.InstanceStarted(start_at=START + timedelta(seconds=30)))
    assert ran.types == ["CancelRequested", "InstanceStarted", "InstanceCancelled"]
    assert_replays(ran)


def test_a_machine_that_leaves_memory_during_the_pause_leaves_nothing_behind() -> None:
    ran = Run(failing, start=False, attempt=2)
    start_later(ran, 30)
    ran.machine.dispose()


def test_open_work_of_a_failed_attempt_is_left_to_be_cancelled() -> None:
    @workflow(name="retries.engine.busy", retry=SECONDS)
    async def busy() -> None:
        asyncio.create_task(echo())  # noqa: RUF006
        await clean_up()
        raise CardDeclined("no")

    ran = Run(busy)
    ran.send(completed(1))
    closing = ran.closing
    assert isinstance(closing, ev.InstanceFailed)
    assert closing.next_execution_id
    assert ran.types.count("ActivityScheduled") == 2
    assert ran.types[-2:] == ["ActivityCancelled", "InstanceFailed"]
    assert_replays(ran)


def test_what_it_inherits_is_received_first() -> None:
    ran = Run(listening, start=False, attempt=2)
    inherited = ev.CarriedSignal("number", signal("number", 4).value)
    ran.send(ev.InstanceStarted(signals=[inherited], start_at=START + timedelta(seconds=30)), signal("number", 5))
    ran.advance(30)
    assert ran.result == 4
    assert_replays(ran)

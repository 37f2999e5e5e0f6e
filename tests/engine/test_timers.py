"""Timers: durable, cancelled without a trace where nothing was recorded, fired once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from django_workflows import workflow
from django_workflows.engine import events as ev

from .activities import echo
from .harness import START, Run, assert_replays, completed, forever, run


async def _expire_timeout() -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            await forever()


async def _expire_wait_for() -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(forever(), 60)


@pytest.mark.parametrize(
    "wait",
    [
        lambda: workflow.sleep(60),
        lambda: workflow.sleep(timedelta(minutes=1)),
        lambda: workflow.timer(60, name="grace"),
        lambda: asyncio.sleep(60),
        _expire_timeout,
        _expire_wait_for,
    ],
)
def test_each_way_to_wait_is_one_durable_timer(wait: Callable[[], Awaitable[None]]) -> None:
    async def main() -> float:
        await wait()
        return workflow.time()

    ran = run(main)
    assert ran.types == ["InstanceStarted", "TimerStarted", "TimerFired", "InstanceCompleted"]
    started = ran.events[1]
    assert isinstance(started, ev.TimerStarted)
    assert started.fire_at == START + timedelta(seconds=60)
    assert ran.result == (START + timedelta(seconds=60)).timestamp()


def test_a_timer_that_fires_by_a_clock_that_is_ahead_of_the_step_s_is_not_early_for_the_code() -> None:
    async def main() -> float:
        before = workflow.time()
        await workflow.sleep(60)
        return workflow.time() - before

    ran = Run(main)
    ran.advance(59.9)
    ran.fire(1)
    assert ran.result == pytest.approx(60)
    assert_replays(ran)


@pytest.mark.parametrize("delay", [0, -1, -1e9])
@pytest.mark.parametrize("sleep", [workflow.sleep, asyncio.sleep])
def test_zero_and_less_only_yield(sleep: Callable[[float], Awaitable[None]], delay: float) -> None:
    async def main() -> str:
        await sleep(delay)
        return "done"

    assert run(main).types == ["InstanceStarted", "InstanceCompleted"]


@pytest.mark.parametrize("timeout", [0, -5])
def test_a_timeout_of_zero_or_less_expires_at_once(timeout: float) -> None:
    async def main() -> list[str]:
        seen = []
        try:
            async with asyncio.timeout(timeout):
                await forever()
        except TimeoutError:
            seen.append("timeout")
        try:
            await asyncio.wait_for(forever(), timeout)
        except TimeoutError:
            seen.append("wait_for")
        return seen

    ran = run(main)
    assert ran.result == ["timeout", "wait_for"]
    assert ran.types == ["InstanceStarted", "InstanceCompleted"]


def test_thirty_days_pass_on_the_virtual_clock() -> None:
    async def main() -> float:
        before = workflow.now()
        await workflow.sleep(timedelta(days=30))
        return (workflow.now() - before).total_seconds()

    assert run(main).result == 30 * 86400


def test_an_infinite_sleep_is_no_timer() -> None:
    async def main() -> None:
        await asyncio.sleep(math.inf)

    assert run(main).types == ["InstanceStarted"]


@pytest.mark.parametrize("delay", [1e15, 1e300])
def test_a_delay_beyond_the_calendar_is_an_error_that_names_it(delay: float) -> None:
    async def main() -> None:
        await workflow.sleep(delay)

    assert "before the year 10000, found 1e+" in run(main).failure.message


def test_timers_fire_in_due_order() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def wait(seconds: int) -> None:
            await asyncio.sleep(seconds)
            order.append(seconds)

        await asyncio.gather(wait(30), wait(10), wait(20))
        return order

    assert run(main).result == [10, 20, 30]


def test_cancelled_before_it_is_recorded_it_leaves_no_event() -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            pass
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()

    assert run(main).types == ["InstanceStarted", "InstanceCompleted"]


def test_cancelled_later_it_is_started_and_cancelled() -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await echo()

    assert run(main).types == [
        "InstanceStarted", "TimerStarted", "ActivityScheduled", "ActivityCompleted", "TimerCancelled",
        "InstanceCompleted",
    ]  # fmt: skip


def test_cancelled_twice_it_is_cancelled_once() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await echo()
        task.cancel()
        task.cancel()
        await echo()
        task.cancel()

    assert run(main).types.count("TimerCancelled") == 1


def test_firing_while_it_is_being_cancelled_is_ignored() -> None:
    async def main() -> str:
        async with asyncio.timeout(60):
            return str(await echo("first"))

    ran = Run(main)
    step = ran.send(completed(2, "first"), ev.TimerFired(1))
    assert step.consumed == 1  # closed: the rest is nobody's
    assert ran.result == "first"
    assert_replays(ran)


def test_firing_after_its_cancelling_step_is_ignored() -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await echo()
        await echo()

    ran = Run(main)
    step = ran.send(completed(2), ev.TimerFired(1))
    assert (step.consumed, ran.fire(1).events) == (2, [])
    ran.complete(3)
    assert "TimerFired" not in ran.types
    assert_replays(ran)


def test_firing_before_the_completion_in_one_batch_the_timeout_wins() -> None:
    async def main() -> str:
        try:
            async with asyncio.timeout(60):
                await echo()
        except TimeoutError:
            return "late"
        return "in time"

    ran = Run(main)
    ran.send(ev.TimerFired(1), completed(2))
    assert ran.result == "late"
    assert_replays(ran)


def test_a_rescheduled_timeout_counts_anew() -> None:
    async def main() -> float:
        begun = workflow.time()
        try:
            async with asyncio.timeout(60) as timeout:
                await asyncio.sleep(10)
                timeout.reschedule(asyncio.get_running_loop().time() + 100)
                await forever()
        except TimeoutError:
            pass
        return workflow.time() - begun

    assert run(main).result == 110


def test_a_call_later_can_be_cancelled() -> None:
    async def main() -> list[str]:
        called: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(5, called.append, "five")
        loop.call_later(3, called.append, "three").cancel()
        loop.call_soon(called.append, "soon").cancel()
        await asyncio.sleep(10)
        return called

    assert run(main).result == ["five"]

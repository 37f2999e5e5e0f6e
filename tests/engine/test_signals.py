"""Signals: kept until somebody listens, in order, each received once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from django_workflows import NotInWorkflowError, Signal, workflow
from django_workflows.engine import events as ev
from django_workflows.engine.context import require_machine

from .activities import echo
from .harness import Run, assert_replays, completed, run, signal

number = Signal("number", int)
anything: Signal[Any] = Signal("anything")


async def receive_two() -> list[int]:
    return [await number.receive(), await number.receive()]


def test_before_the_workflow_listens_it_is_kept() -> None:
    async def main() -> int:
        await echo()
        return await number.receive()

    ran = Run(main)
    ran.signal("number", 7)
    ran.complete(1)
    assert ran.result == 7
    assert_replays(ran)


def test_while_it_listens() -> None:
    ran = Run(receive_two)
    ran.signal("number", 1)
    ran.signal("number", 2)
    assert ran.result == [1, 2]
    assert_replays(ran)


def test_ten_in_one_batch_arrive_in_order() -> None:
    async def main() -> list[int]:
        return [await number.receive() for _ in range(10)]

    ran = Run(main)
    ran.send(*[signal("number", value) for value in range(10)])
    assert ran.result == list(range(10))
    assert_replays(ran)


def test_async_for_receives_one_after_the_other() -> None:
    async def main() -> int:
        total = 0
        async for value in number:
            if value < 0:
                break
            total += await echo(value)
        return total

    ran = Run(main)
    ran.send(signal("number", 3), signal("number", 4), signal("number", -1))
    ran.finish()
    assert ran.result == 7
    assert_replays(ran)


def test_through_an_async_generator() -> None:
    async def positive() -> AsyncIterator[int]:
        async for value in number:
            if value <= 0:
                return
            yield value

    async def main() -> list[int]:
        return [value async for value in positive()]

    ran = Run(main)
    ran.send(signal("number", 3), signal("number", 4), signal("number", 0))
    assert ran.result == [3, 4]
    assert_replays(ran)


def test_receive_nowait_takes_what_is_there() -> None:
    async def main() -> list[int | None]:
        found: list[int | None] = []
        await echo()
        for _ in range(3):
            try:
                found.append(number.receive_nowait())
            except asyncio.QueueEmpty:
                found.append(None)
        return found

    ran = Run(main)
    ran.send(signal("number", 1), signal("number", 2), completed(1))
    assert ran.result == [1, 2, None]
    assert_replays(ran)


@pytest.mark.parametrize("value", ["text", None, [1], 1.5])
def test_one_that_does_not_fit_its_type_is_skipped_and_logged_once(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    ran = Run(receive_two)
    with caplog.at_level(logging.WARNING):
        ran.send(signal("number", 1), signal("number", value), signal("number", 2))
        assert ran.result == [1, 2]
        again = Run(receive_two, start=False).machine
        again.replay(ran.history)
    assert [record.message[:24] for record in caplog.records] == ["signal 'number' skipped,"]
    assert ran.types.count("SignalReceived") == 3
    assert_replays(ran)


def test_names_do_not_mix() -> None:
    async def main() -> list[Any]:
        return [await anything.receive(), await number.receive()]

    ran = Run(main)
    ran.send(signal("number", 1), signal("other", 2), signal("anything", {"three": 3}))
    assert ran.result == [{"three": 3}, 1]
    assert_replays(ran)


def test_many_unread_none_is_lost() -> None:
    async def main() -> int:
        await echo()
        return sum([await number.receive() for _ in range(1500)])

    ran = Run(main)
    for start in range(0, 1500, 100):
        ran.send(*[signal("number", value) for value in range(start, start + 100)])
    ran.complete(1)
    assert ran.result == sum(range(1500))
    assert_replays(ran, most_cuts=10)


def test_two_receivers_each_get_one_in_the_order_they_began_to_wait() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(number.receive(), number.receive())

    for batched in (True, False):
        ran = Run(main)
        inputs = [signal("number", 1), signal("number", 2)]
        for batch in [inputs] if batched else [[one] for one in inputs]:
            ran.send(*batch)
        assert ran.result == [1, 2]
        assert_replays(ran)


def test_a_receiver_that_is_woken_and_cancelled_at_once_leaves_the_signal_to_the_next() -> None:
    async def main() -> int:
        first = asyncio.create_task(number.receive())
        second = asyncio.create_task(number.receive())
        await asyncio.sleep(0)
        machine = require_machine("the test")
        machine.signals.add("number", signal("number", 8).value)
        first.cancel()
        return await second

    assert Run(main).result == 8


def test_a_timeout_that_expires_before_the_signal_leaves_it_to_the_next_receive() -> None:
    async def main() -> int:
        try:
            await asyncio.wait_for(number.receive(), 60)
        except TimeoutError:
            await echo()
        return await number.receive()

    ran = Run(main)
    ran.send(ev.TimerFired(1), signal("number", 6))
    ran.complete(2)
    assert ran.result == 6
    assert_replays(ran)


def test_receivers_that_gave_up_leave_nothing_behind() -> None:
    async def main() -> None:
        for _ in range(50):
            try:
                async with asyncio.timeout(1):
                    await number.receive()
            except TimeoutError:
                pass
        await echo()
        await anything.receive()

    ran = Run(main).finish()
    waiting = {name: len(channel._receivers) for name, channel in ran.machine.signals._channels.items()}
    assert waiting == {"number": 0, "anything": 1}


def test_names_that_are_used_once_are_forgotten() -> None:
    async def main() -> int:
        unread = [Signal(f"unread {one}", int) for one in range(3)]
        waiting = asyncio.create_task(number.receive())
        await asyncio.sleep(0)
        for used_once in range(2000):
            with contextlib.suppress(asyncio.QueueEmpty):
                Signal(f"name {used_once}").receive_nowait()
        await anything.receive()
        return await waiting + sum([await signal.receive() for signal in unread])

    ran = Run(main, signals=tuple(ev.CarriedSignal(f"unread {n}", signal("", n).value) for n in range(3)))
    assert len(ran.machine.signals._channels) < 150
    assert [one.name for one in ran.machine.signals.unread()] == ["unread 0", "unread 1", "unread 2"]
    ran.signal("number", 10)
    ran.signal("anything")
    assert ran.result == 13
    assert_replays(ran)


def test_signals_that_came_with_the_start_are_first() -> None:
    ran = Run(receive_two, signals=(ev.CarriedSignal("number", signal("number", 1).value),))
    ran.signal("number", 2)
    assert ran.result == [1, 2]
    assert_replays(ran)


def test_outside_a_workflow_it_is_an_error() -> None:
    with pytest.raises(NotInWorkflowError, match=r"Signal\('number'\)\.receive_nowait\(\)"):
        number.receive_nowait()


def test_a_side_effect_cannot_take_one() -> None:
    async def main() -> int:
        await anything.receive()
        with pytest.raises(NotInWorkflowError, match="found one that uses a signal"):
            workflow.side_effect(number.receive_nowait)
        return number.receive_nowait()

    ran = Run(main)
    ran.send(signal("number", 1), signal("anything"))
    assert ran.result == 1
    assert_replays(ran)


def test_a_condition_over_signals_handled_by_a_task() -> None:
    async def main() -> int:
        total = 0

        async def listen() -> None:
            nonlocal total
            async for value in number:
                total += value

        task = asyncio.create_task(listen())
        await workflow.wait_condition(lambda: total >= 10)
        task.cancel()
        return total

    ran = Run(main)
    ran.send(signal("number", 4), signal("number", 5))
    ran.signal("number", 6)
    assert ran.result == 15
    assert_replays(ran)


def test_run_helper_stops_where_a_message_is_needed() -> None:
    assert run(receive_two).types == ["InstanceStarted"]

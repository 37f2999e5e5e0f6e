"""Channels: values from task to task, in order, each to one receiver, buffered and from hand to hand."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from django_workflows import Channel, ChannelClosed, Signal, workflow

from .activities import double, echo
from .harness import Run, assert_replays, forever, run, settle
from .hash_seeds import histories_under_hash_seeds

SCENARIOS: list[Callable[[], Coroutine[Any, Any, Any]]] = []


def scenario(function: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], Coroutine[Any, Any, Any]]:
    SCENARIOS.append(function)
    return function


# Unbuffered


def test_an_unbuffered_send_waits_for_a_receiver() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        sending = asyncio.create_task(channel.send(1))
        await settle()
        seen = [sending.done(), len(channel)]
        seen.append(await channel.receive())
        await sending
        return seen

    assert run(main).result == [False, 0, 1]


def test_an_unbuffered_receive_waits_for_a_sender() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        seen: list[Any] = [receiving.done()]
        await channel.send(1)  # there is a receiver, so this does not wait
        seen.append(receiving.done())
        return [*seen, await receiving]

    assert run(main).result == [False, False, 1]


def test_a_sender_goes_on_only_when_its_own_value_is_taken() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        order: list[Any] = []

        async def send(value: int) -> None:
            await channel.send(value)
            order.append(f"sent {value}")

        tasks = [asyncio.create_task(send(value)) for value in range(3)]
        for _ in tasks:
            await settle()
            order.append(await channel.receive())
        await asyncio.gather(*tasks)
        return order

    assert run(main).result == [0, "sent 0", 1, "sent 1", 2, "sent 2"]


def test_a_receiver_that_was_woken_does_not_let_another_sender_in() -> None:
    async def main() -> list[Any]:
        channel: Channel[str] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        first, second = asyncio.create_task(channel.send("first")), asyncio.create_task(channel.send("second"))
        found = await receiving
        await settle()
        return [found, first.done(), second.done(), second.cancel()]

    assert run(main).result == ["first", True, False, True]


# Buffered


def test_a_buffered_send_waits_when_the_buffer_is_full() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel(capacity=2)
        await channel.send(1)
        await channel.send(2)
        third = asyncio.create_task(channel.send(3))
        await settle()
        seen: list[Any] = [third.done(), len(channel)]
        seen.append(await channel.receive())
        await third
        return [*seen, len(channel), await channel.receive(), await channel.receive(), len(channel)]

    assert run(main).result == [False, 2, 1, 2, 2, 3, 0]


def test_a_value_for_a_receiver_that_waits_takes_no_room() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel(1)
        receiving = asyncio.create_task(channel.receive())
        await settle()
        channel.send_nowait(1)
        channel.send_nowait(2)
        seen = [len(channel)]
        with pytest.raises(asyncio.QueueFull):
            channel.send_nowait(3)
        return [*seen, await receiving, await channel.receive()]

    assert run(main).result == [1, 1, 2]


def test_a_negative_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a capacity of 0 \(unbuffered\) or more, found -1"):
        Channel[int](-1)


# Without waiting


@pytest.mark.parametrize("capacity", [0, 1])
def test_receive_nowait_raises_where_it_would_wait(capacity: int) -> None:
    async def main(capacity: int) -> None:
        channel: Channel[int] = Channel(capacity)
        with pytest.raises(asyncio.QueueEmpty):
            channel.receive_nowait()

    assert run(main, capacity).result is None


def test_send_nowait_raises_where_it_would_wait() -> None:
    async def main() -> int:
        with pytest.raises(asyncio.QueueFull):
            Channel[int]().send_nowait(1)
        channel: Channel[int] = Channel(1)
        channel.send_nowait(1)
        with pytest.raises(asyncio.QueueFull):
            channel.send_nowait(2)
        return channel.receive_nowait()

    assert run(main).result == 1


def test_send_nowait_meets_a_receiver_that_waits() -> None:
    async def main() -> int:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        channel.send_nowait(1)
        with pytest.raises(asyncio.QueueFull):  # one receiver, one value
            channel.send_nowait(2)
        return await receiving

    assert run(main).result == 1


def test_receive_nowait_meets_a_sender_that_waits() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        sending = asyncio.create_task(channel.send(1))
        await settle()
        found = channel.receive_nowait()
        with pytest.raises(asyncio.QueueEmpty):
            channel.receive_nowait()
        return [found, await sending]

    assert run(main).result == [1, None]


def test_a_value_promised_to_a_woken_receiver_cannot_be_taken_from_under_it() -> None:
    async def main() -> int:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        channel.send_nowait(1)
        with pytest.raises(asyncio.QueueEmpty):
            channel.receive_nowait()
        return await receiving

    assert run(main).result == 1


def test_values_leave_in_the_order_they_came_also_to_one_who_runs_before_a_woken_receiver() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        received: list[Any] = []

        async def receive(who: str) -> None:
            received.append((who, await channel.receive()))

        async def send_first() -> None:
            channel.send_nowait(1)

        async with asyncio.TaskGroup() as group:
            group.create_task(receive("waits"))
            await settle()
            group.create_task(send_first())  # wakes it; the next two run before it does
            group.create_task(channel.send(2))
            group.create_task(receive("comes along"))
        return received

    assert run(main).result == [["comes along", 1], ["waits", 2]]


# Many


@scenario
async def waiting_receivers_are_served_in_order() -> Any:
    channel: Channel[int] = Channel()
    received: list[Any] = []

    async def receive(name: str) -> None:
        received.append(name + await echo(str(await channel.receive())))

    async with asyncio.TaskGroup() as group:
        for name in "abcd":
            group.create_task(receive(name))
        await settle()
        for value in range(4):
            await channel.send(value)
    return received


@scenario
async def waiting_senders_are_served_in_order() -> Any:
    channel: Channel[str] = Channel(1)
    sent: list[str] = []

    async def send(name: str) -> None:
        await channel.send(name)
        sent.append(await echo(name))

    async with asyncio.TaskGroup() as group:
        for name in "abcd":
            group.create_task(send(name))
        await settle()
        received = [await channel.receive() for _ in range(4)]
    return [received, sent]


@scenario
async def a_pipeline_with_one_task_per_stage_keeps_the_order() -> Any:
    stages: list[Channel[int]] = [Channel(), Channel(3), Channel(), Channel(1)]

    async def stage(source: Channel[int], sink: Channel[int]) -> None:
        async for value in source:
            await sink.send(value + 1)
        sink.close()

    async def produce() -> None:
        for value in range(300):
            await stages[0].send(value)
        stages[0].close()

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        for source, sink in itertools.pairwise(stages):
            group.create_task(stage(source, sink))
        received = [value async for value in stages[-1]]
    await echo(received)
    return received == list(range(3, 303))


@scenario
async def a_pipeline_with_activities_and_several_workers_loses_and_doubles_nothing() -> Any:
    numbers: Channel[int] = Channel(2)
    doubled: Channel[int] = Channel()

    async def worker() -> None:
        async for number in numbers:
            await doubled.send(await double(number))

    async def produce() -> None:
        for number in range(60):
            await numbers.send(number)
        numbers.close()

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(worker())
        doubled.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        group.create_task(work())
        received = [value async for value in doubled]
    return received


@scenario
async def hundreds_of_values_between_many_senders_and_receivers() -> Any:
    channel: Channel[list[int]] = Channel(5)
    received: list[list[int]] = []

    async def send(sender: int) -> None:
        for number in range(40):
            await channel.send([sender, number])
            if number % (sender + 3) == 0:
                await asyncio.sleep(0)

    async def receive(pause: int) -> None:
        async for value in channel:
            received.append(value)
            for _ in range(pause):
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as receivers:
        for pause in range(6):
            receivers.create_task(receive(pause))
        async with asyncio.TaskGroup() as senders:
            for sender in range(8):
                senders.create_task(send(sender))
        channel.close()
    await echo(received)
    in_order = all([n for s, n in received if s == sender] == list(range(40)) for sender in range(8))
    return [len(received), in_order]


@pytest.mark.parametrize("main", SCENARIOS, ids=lambda main: main.__name__)
def test_it_decides_the_same_on_every_replay(main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    assert run(main).closing is not None


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (waiting_receivers_are_served_in_order, ["a0", "b1", "c2", "d3"]),
        (waiting_senders_are_served_in_order, [["a", "b", "c", "d"], ["a", "b", "c", "d"]]),
        (a_pipeline_with_one_task_per_stage_keeps_the_order, True),
        (a_pipeline_with_activities_and_several_workers_loses_and_doubles_nothing, [2 * n for n in range(60)]),
        (hundreds_of_values_between_many_senders_and_receivers, [320, True]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_all_values_arrive_in_order(main: Callable[[], Coroutine[Any, Any, Any]], expected: Any) -> None:
    assert Run(main).finish().result == expected


def test_it_decides_the_same_under_every_hash_seed() -> None:
    printed = histories_under_hash_seeds(__name__)
    assert len(printed) == 1
    assert "a_pipeline_with_activities" in printed.pop()


# Closing


def test_a_closed_channel_is_drained_first() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel(3)
        for value in range(3):
            await channel.send(value)
        before = channel.closed
        channel.close()
        channel.close()  # again: nothing happens
        received = [await channel.receive(), channel.receive_nowait(), len(channel), await channel.receive()]
        with pytest.raises(ChannelClosed, match="closed and is drained"):
            await channel.receive()
        with pytest.raises(ChannelClosed, match="closed and is drained"):
            channel.receive_nowait()
        return [before, channel.closed, *received]

    assert run(main).result == [False, True, 0, 1, 1, 2]


def test_nothing_can_be_sent_to_a_closed_channel() -> None:
    async def main() -> int:
        channel: Channel[int] = Channel(3)
        channel.close()
        with pytest.raises(ChannelClosed, match="expected an open channel"):
            await channel.send(1)
        with pytest.raises(ChannelClosed, match="expected an open channel"):
            channel.send_nowait(1)
        return len(channel)

    assert run(main).result == 0


def test_closing_ends_the_receivers_that_wait() -> None:
    async def main() -> list[str]:
        channel: Channel[int] = Channel()

        async def iterate() -> None:
            async for _ in channel:
                pass

        tasks = [asyncio.create_task(work) for work in (channel.receive(), iterate(), channel.receive())]
        await settle()
        channel.close()
        return [type(found).__name__ for found in await asyncio.gather(*tasks, return_exceptions=True)]

    assert run(main).result == ["ChannelClosed", "NoneType", "ChannelClosed"]


@pytest.mark.parametrize("capacity", [0, 1])
def test_closing_sends_the_senders_that_wait_away_with_their_values(capacity: int) -> None:
    async def main(capacity: int) -> list[Any]:
        channel: Channel[int] = Channel(capacity)
        tasks = [asyncio.create_task(channel.send(value)) for value in range(3)]
        await settle()
        channel.close()
        ends = [type(found).__name__ for found in await asyncio.gather(*tasks, return_exceptions=True)]
        return [*ends, [value async for value in channel]]

    expected = ["NoneType"] * capacity + ["ChannelClosed"] * (3 - capacity) + [list(range(capacity))]
    assert run(main, capacity).result == expected


def test_async_for_ends_when_the_channel_is_closed_and_drained() -> None:
    async def main() -> list[int]:
        channel: Channel[int] = Channel(2)
        channel.send_nowait(1)
        channel.send_nowait(2)
        channel.close()
        return [value async for value in channel]

    assert run(main).result == [1, 2]


def test_an_instance_that_does_not_expect_the_close_fails() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        channel.close()
        await channel.receive()

    assert run(main).failure.type == "django_workflows.exceptions.ChannelClosed"


# Cancellation


def test_a_cancelled_receiver_takes_nothing() -> None:
    async def main() -> int:
        channel: Channel[int] = Channel()
        first, second = asyncio.create_task(channel.receive()), asyncio.create_task(channel.receive())
        await settle()
        first.cancel()
        await channel.send(1)  # the first has not run yet, but it waits no more
        return await second

    assert run(main).result == 1


def test_a_cancelled_sender_sends_nothing() -> None:
    async def main() -> list[int]:
        channel: Channel[int] = Channel()
        first, second = asyncio.create_task(channel.send(1)), asyncio.create_task(channel.send(2))
        await settle()
        first.cancel()
        received = [await channel.receive()]
        await second
        with pytest.raises(asyncio.QueueEmpty):
            channel.receive_nowait()
        return received

    assert run(main).result == [2]


@pytest.mark.parametrize("capacity", [0, 1])
def test_a_receiver_cancelled_before_it_runs_leaves_its_value_to_the_next_one_that_waits(capacity: int) -> None:
    async def main(capacity: int) -> list[Any]:
        channel: Channel[int] = Channel(capacity)
        first, second, third = [asyncio.create_task(channel.receive()) for _ in range(3)]
        await settle()
        channel.send_nowait(1)
        channel.send_nowait(2)
        first.cancel()
        found = [await second, await third]
        return [*found, first.cancelled()]

    assert run(main, capacity).result == [1, 2, True]


def test_a_receiver_cancelled_before_it_runs_leaves_its_value_in_the_channel() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        await channel.send(1)
        receiving.cancel()
        await asyncio.wait([receiving])
        seen: list[Any] = [len(channel)]
        sending = asyncio.create_task(channel.send(2))  # there is no room for it
        await settle()
        seen.append(sending.done())
        return [*seen, await channel.receive(), await channel.receive(), await sending]

    assert run(main).result == [1, False, 1, 2, None]


def test_what_a_cancelled_receiver_leaves_in_a_closed_channel_reaches_the_one_who_was_told_of_the_close() -> None:
    async def main() -> int:
        channel: Channel[int] = Channel()
        first, second = asyncio.create_task(channel.receive()), asyncio.create_task(channel.receive())
        await settle()
        channel.send_nowait(1)
        channel.close()
        first.cancel()
        return await second

    assert run(main).result == 1


@pytest.mark.parametrize("capacity", [0, 2])
def test_receivers_and_senders_that_time_out_again_and_again_lose_nothing(capacity: int) -> None:
    async def main(capacity: int) -> list[Any]:
        channel: Channel[int] = Channel(capacity)
        received: list[int] = []
        timeouts = 0

        async def send() -> None:
            nonlocal timeouts
            for number in range(6):
                while True:
                    try:
                        async with asyncio.timeout(3):
                            await channel.send(number)
                            break
                    except TimeoutError:
                        timeouts += 1
                await workflow.sleep(number * 3)

        sending = asyncio.create_task(send())
        while len(received) < 6:
            try:
                async with asyncio.timeout(2):
                    received.append(await channel.receive())
            except TimeoutError:
                timeouts += 1
            await workflow.sleep(5)
        await sending
        return [received, timeouts > 0]

    assert run(main, capacity).result == [list(range(6)), True]


def test_a_sender_cancelled_after_its_value_was_taken_has_sent_it() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        sending = asyncio.create_task(channel.send(1))
        await settle()
        found = channel.receive_nowait()
        sending.cancel()
        await asyncio.wait([sending])
        return [found, sending.cancelled(), len(channel)]

    assert run(main).result == [1, True, 0]


def test_waiters_that_gave_up_leave_nothing_behind() -> None:
    sizes: list[int] = []

    async def main() -> None:
        channel: Channel[int] = Channel()
        for _ in range(20):
            for work in (channel.receive(), channel.send(1)):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(work, 1)
        sizes.extend([len(channel._receivers), len(channel._senders)])

    run(main)
    assert set(sizes) == {0}


def test_the_cancellation_of_the_instance_reaches_senders_and_receivers() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        try:
            await channel.receive()
        finally:
            sending = asyncio.create_task(channel.send(1))
            await echo(await channel.receive())
            await sending

    ran = Run(main)
    ran.cancel()
    ran.finish()
    assert ran.scheduled() == [("echo", [1])]
    assert ran.types[-1] == "InstanceCancelled"
    assert_replays(ran)


# Together with the rest


def test_conditions_see_what_is_in_a_channel() -> None:
    async def main() -> int:
        channel: Channel[str] = Channel(10)

        async def fill() -> None:
            for _ in range(4):
                await channel.send(await echo("x"))

        filling = asyncio.create_task(fill())
        await workflow.wait_condition(lambda: len(channel) == 3)
        found = len(channel)
        await filling
        return found

    assert run(main).result == 3


def test_a_workflow_ends_while_tasks_wait_on_channels() -> None:
    async def main() -> str:
        channel: Channel[int] = Channel()
        tasks = [asyncio.create_task(channel.receive()), asyncio.create_task(Channel[int]().send(1))]
        await settle()
        return "done" if tasks else ""

    assert run(main).result == "done"


def test_a_machine_that_leaves_memory_ends_what_waits_on_channels_and_signals() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        never: Signal[None] = Signal("never")
        async with asyncio.TaskGroup() as group:
            group.create_task(channel.receive())
            group.create_task(never.receive())
            group.create_task(forever())

    Run(main).machine.dispose()


def test_it_works_in_plain_asyncio() -> None:
    async def main() -> list[int]:
        channel: Channel[int] = Channel(2)

        async def produce() -> None:
            for value in range(10):
                await channel.send(value)
            channel.close()

        producing = asyncio.create_task(produce())
        received = [value async for value in channel]
        await producing
        return received

    assert asyncio.run(main()) == list(range(10))


def test_the_namespace_has_it_too() -> None:
    assert workflow.Channel is Channel

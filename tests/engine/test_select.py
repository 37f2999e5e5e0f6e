"""`select`: the first case that is ready, in the order of the arguments; from the others nothing is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from django_workflows import Await, Case, Channel, ChannelClosed, Default, Receive, Send, Signal, workflow
from django_workflows.engine.context import require_machine

from .activities import clean_up, decline, double, echo
from .harness import Run, assert_replays, forever, run, settle, signal
from .hash_seeds import histories_under_hash_seeds

number = Signal("number", int)
word = Signal("word", str)
select = workflow.select


def filled(*values: Any) -> Channel[Any]:
    channel: Channel[Any] = Channel(len(values))
    for value in values:
        channel.send_nowait(value)
    return channel


# The order of the arguments


def test_the_first_that_is_ready_in_argument_order_wins() -> None:
    async def main() -> list[Any]:
        first, second = Receive(filled(1)), Receive(filled(2))
        chosen = await select(first, second)
        again = await select(second, first)
        return [chosen is first, chosen.result(), again is second, again.result()]

    assert run(main).result == [True, 1, True, 2]


def test_it_waits_for_whatever_becomes_ready_first() -> None:
    async def main() -> list[Any]:
        slow, quick = Await(workflow.sleep(60)), Await(workflow.sleep(5))
        chosen = await select(slow, quick, Receive(Channel[int]()))
        return [chosen is quick, workflow.time() - workflow.info().started_at.timestamp()]

    assert run(main).result == [True, 5]


def test_several_that_become_ready_at_once_are_looked_at_in_order() -> None:
    async def main() -> bool:
        one, two = asyncio.Event(), asyncio.Event()
        first, second = Await(one.wait()), Await(two.wait())
        selecting = asyncio.create_task(select(first, second))
        await settle()
        two.set()
        one.set()
        return await selecting is first

    assert run(main).result is True


# Default


def test_default_is_chosen_when_nothing_before_it_is_ready() -> None:
    async def main() -> list[Any]:
        default = Default()
        chosen = await select(Receive(Channel[int]()), Send(Channel[int](), 1), Await(forever()), default)
        return [chosen is default, chosen.result()]

    assert run(main).result == [True, None]


def test_default_is_not_chosen_when_something_before_it_is_ready() -> None:
    async def main() -> Any:
        return (await select(Receive(filled(7)), Default())).result()

    assert run(main).result == 7


def test_with_default_it_does_not_wait() -> None:
    async def main() -> list[Any]:
        order: list[str] = []
        asyncio.get_running_loop().call_soon(order.append, "later")
        await select(Receive(Channel[int]()), Default())
        return order

    assert run(main).result == []


# Await


def test_await_takes_activities_tasks_and_futures() -> None:
    async def main() -> list[Any]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(echo("task"))
        called = Await(echo("call"))
        found = []
        for case in (called, Await(task), Await(future)):
            if case.future is future:
                future.set_result("future")
            found.append((await select(case)).result())
        return found

    assert run(main).result == ["call", "task", "future"]


def test_a_task_that_was_not_chosen_goes_on() -> None:
    async def main() -> list[Any]:
        slow = Await(echo("slow"))
        chosen = await select(slow, Receive(filled("quick")))
        return [chosen.result(), slow.future.done(), await slow.future]

    assert run(main).result == ["quick", False, "slow"]


def test_a_coroutine_starts_even_if_another_case_is_ready() -> None:
    async def main() -> str:
        await select(Receive(filled(1)), Await(clean_up("started")))
        return "over"

    ran = run(main)
    assert (ran.scheduled(), ran.result) == ([("clean_up", ["started"])], "over")


def test_what_a_task_raised_is_the_result_of_its_case() -> None:
    async def main() -> list[str]:
        failing = Await(decline("no funds"))
        chosen = await select(Await(forever()), failing)
        caught = []
        for _ in range(2):
            try:
                chosen.result()
            except Exception as error:
                caught.append(f"{type(error).__name__} {error}")
        return caught

    assert run(main).result == ["CardDeclined no funds"] * 2


def test_a_task_that_failed_unseen_fails_the_instance() -> None:
    async def main() -> str:
        await select(Await(decline("unseen")))
        return "nobody asked for the result"

    assert run(main).failure.message == "unseen"


def test_a_task_that_was_cancelled_raises_that_from_the_result() -> None:
    async def main() -> str:
        waiting = Await(forever())
        waiting.future.cancel()
        chosen = await select(waiting)
        try:
            chosen.result()
        except asyncio.CancelledError:
            return "cancelled"
        return ""

    assert run(main).result == "cancelled"


def test_many_activities_through_a_loop_that_removes_what_is_done() -> None:
    async def main() -> list[Any]:
        cases = [Await(double(value)) for value in range(100)]
        order = []
        while cases:
            chosen = await select(*cases)
            cases.remove(chosen)
            order.append(chosen.result())
        return order

    assert run(main).result == [2 * value for value in range(100)]


def test_a_long_lived_task_does_not_remember_the_selects_that_waited_for_it() -> None:
    remembered: list[int] = []

    async def main() -> None:
        stop = Await(number.receive())
        callbacks = len(stop.future._callbacks or [])  # type: ignore[attr-defined]
        for _ in range(30):
            await select(stop, Await(workflow.sleep(1)), stop)
        remembered.append(len(stop.future._callbacks or []) - callbacks)  # type: ignore[attr-defined]

    run(main)
    assert set(remembered) == {0}


# Signals


def test_a_signal_that_was_not_chosen_stays_unread() -> None:
    async def main() -> list[Any]:
        await word.receive()
        unchosen = Receive(number)
        chosen = await select(Receive(filled("channel")), unchosen)
        return [chosen.result(), await number.receive()]

    ran = Run(main)
    ran.send(signal("number", 1), signal("word", "go"))
    assert ran.result == ["channel", 1]
    assert_replays(ran)


def test_select_over_signals_an_activity_and_a_timer_in_a_loop() -> None:
    async def main() -> list[Any]:
        overdue, working = Await(workflow.sleep(60)), Await(echo("worked"))
        numbers, words = Receive(number), Receive(word)
        seen: list[Any] = []
        cases: list[Case[Any]] = [numbers, words, working, overdue]
        while True:
            chosen = await select(*cases)
            if chosen is overdue:
                return seen
            if chosen is working:
                cases.remove(working)
            seen.append(chosen.result())

    ran = Run(main)
    ran.send(signal("number", 1), signal("word", "a"), signal("number", 2))
    ran.complete(2, "worked")
    ran.send(signal("word", "b"), signal("number", 3))
    ran.advance(60)
    assert ran.result == [1, "a", 2, "worked", "b", 3]
    assert_replays(ran)


def test_each_of_two_selects_that_wait_for_a_signal_gets_one_first_come_first_served() -> None:
    async def main() -> list[Any]:
        async def wait(name: str) -> str:
            return f"{name}{(await select(Receive(word), Receive(number))).result()}"

        return await asyncio.gather(wait("first "), wait("second "))

    ran = Run(main)
    ran.signal("number", 1)
    ran.signal("number", 2)
    assert ran.result == ["first 1", "second 2"]
    assert_replays(ran)


def test_a_select_does_not_take_a_signal_from_a_receiver_that_was_woken_for_it() -> None:
    async def main() -> list[Any]:
        receiving = asyncio.create_task(number.receive())
        await settle()
        require_machine("the test").signals.add("number", signal("number", 8).value)
        default = Default()
        chosen = await select(Receive(number), default)
        return [chosen is default, await receiving]

    assert Run(main).result == [True, 8]


def test_a_select_that_is_woken_by_a_signal_and_cancelled_at_once_leaves_it_to_the_next_that_waits() -> None:
    async def main() -> list[Any]:
        first = asyncio.create_task(select(Receive(word), Receive(number)))
        second = asyncio.create_task(select(Receive(number), Await(forever())))
        third = asyncio.create_task(number.receive())
        await settle()
        machine = require_machine("the test")
        machine.signals.add("number", signal("number", 8).value)
        first.cancel()
        await settle()
        machine.signals.add("number", signal("number", 9).value)
        return [(await second).result(), await third]

    assert Run(main).result == [8, 9]


def test_a_signal_that_does_not_fit_its_type_chooses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[Any]:
        async def wait() -> Any:
            return (await select(Await(forever()), Receive(number))).result()

        return await asyncio.gather(wait(), wait())

    ran = Run(main)
    with caplog.at_level(logging.WARNING):
        ran.send(signal("number", "x"), signal("number", 1), signal("number", "y"), signal("number", 2))
    # The one that was woken for the wrong value waits again, behind the other.
    assert ran.result == [2, 1]
    assert len(caplog.records) == 2
    assert_replays(ran)


def test_a_signal_that_does_not_fit_leaves_a_default_to_be_chosen() -> None:
    async def main() -> bool:
        await word.receive()
        default = Default()
        return await select(Receive(number), default) is default

    ran = Run(main)
    logging.disable(logging.WARNING)
    ran.send(signal("number", "x"), signal("word", "go"))
    logging.disable(logging.NOTSET)
    assert ran.result is True


# Channels


def test_what_was_not_chosen_to_be_sent_is_not_sent() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        sending = Send(channel, 1)
        chosen = await select(Await(workflow.sleep(1)), sending)
        with pytest.raises(asyncio.QueueEmpty):
            channel.receive_nowait()
        return [chosen is sending, len(channel)]

    assert run(main).result == [False, 0]


def test_send_and_receive_over_a_buffer() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel(1)
        receiving, sending = Receive(channel), Send(channel, 5)
        order: list[Any] = []
        for _ in range(4):
            chosen = await select(receiving, sending)
            order.append("sent" if chosen is sending else chosen.result())
        return order

    assert run(main).result == ["sent", 5, "sent", 5]


@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_two_selects_that_face_each_other_meet(first: str) -> None:
    async def main(first: str) -> list[Any]:
        channel: Channel[str] = Channel()
        other: Channel[str] = Channel()
        sender = [Await(forever()), Receive(other), Send(channel, "hello")]
        receiver = [Receive(channel), Receive(other), Await(forever())]
        cases = [sender, receiver] if first == "sender" else [receiver, sender]
        waiting = asyncio.create_task(select(*cases[0]))
        await settle()
        chosen = [await select(*cases[1]), await waiting]
        return [sender[2] in chosen, receiver[0] in chosen, receiver[0].result()]

    assert run(main, first).result == [True, True, "hello"]


def test_a_select_that_sends_and_receives_on_one_channel_does_not_meet_itself() -> None:
    async def main() -> list[Any]:
        channel: Channel[str] = Channel()

        async def exchange(name: str) -> str:
            chosen = await select(Send(channel, name), Receive(channel))
            return f"{name} {chosen.result()}"

        alone = asyncio.create_task(exchange("alone"))
        await settle()
        seen: list[Any] = [alone.done()]
        met = await exchange("other")
        return [*seen, met, await alone]

    assert run(main).result == [False, "other None", "alone other"]


def test_a_select_on_a_closed_channel_is_ready_for_ever() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = filled(1)
        channel.close()
        receiving, sending = Receive(channel), Send(channel, 2)
        order: list[Any] = []
        for cases in [(receiving, Default()), (receiving, Default()), (sending, Default())]:
            chosen = await select(*cases)
            try:
                order.append(chosen.result())
            except ChannelClosed as error:
                order.append(f"{type(chosen).__name__}: {error}")
        return order

    assert run(main).result == [
        1,
        "Receive: expected a channel with a value to receive, found one that was closed and is drained",
        "Send: expected an open channel to send to, found one that was closed",
    ]


@pytest.mark.parametrize("kind", ["send", "receive"])
def test_closing_wakes_a_select_that_waits(kind: str) -> None:
    async def main(kind: str) -> list[Any]:
        channel: Channel[int] = Channel()
        case: Case[Any] = Send(channel, 1) if kind == "send" else Receive(channel)
        selecting = asyncio.create_task(select(Await(forever()), case))
        await settle()
        channel.close()
        chosen = await selecting
        with pytest.raises(ChannelClosed):
            chosen.result()
        return [chosen is case, len(channel)]

    assert run(main, kind).result == [True, 0]


def test_a_select_that_was_chosen_takes_nothing_else() -> None:
    async def main() -> list[Any]:
        first, second = Channel[int](), Channel[int]()
        selecting = asyncio.create_task(select(Receive(first), Receive(second)))
        await settle()
        second.send_nowait(2)
        with pytest.raises(asyncio.QueueFull):  # nobody waits there any more, though its case comes first
            first.send_nowait(1)
        return [(await selecting).result()]

    assert run(main).result == [2]


def test_a_select_keeps_its_place_in_the_queues_of_its_channels() -> None:
    async def main() -> list[Any]:
        left, right = Channel[int](), Channel[int]()
        received: list[Any] = []

        async def either(name: str) -> None:
            received.append([name, (await select(Receive(left), Receive(right))).result()])

        async with asyncio.TaskGroup() as group:
            for name in "abcd":
                group.create_task(either(name))
            await settle()
            for value, channel in enumerate([right, left, left, right]):
                await channel.send(value)
        return received

    assert run(main).result == [["a", 0], ["b", 1], ["c", 2], ["d", 3]]


# Cancellation


def test_a_cancelled_select_cancels_none_of_its_tasks() -> None:
    async def main() -> list[Any]:
        working = Await(echo("worked"))
        try:
            async with asyncio.timeout(0):
                await select(working, Receive(Channel[int]()))
        except TimeoutError:
            return ["timeout", await working.future]
        return []

    assert run(main).result == ["timeout", "worked"]


def test_a_select_cancelled_after_it_was_handed_a_value_leaves_it_in_the_channel() -> None:
    async def main() -> list[Any]:
        left, right = Channel[int](), Channel[int]()
        selecting = asyncio.create_task(select(Receive(left), Receive(right)))
        await settle()
        await right.send(1)
        selecting.cancel()
        await asyncio.wait([selecting])
        return [selecting.cancelled(), len(left), await right.receive()]

    assert run(main).result == [True, 0, 1]


def test_a_select_cancelled_after_it_was_handed_a_value_passes_it_on() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        cancelled, waiting = [asyncio.create_task(select(Await(forever()), Receive(channel))) for _ in range(2)]
        await settle()
        await channel.send(1)
        cancelled.cancel()
        return [(await waiting).result(), cancelled.cancelled()]

    assert run(main).result == [1, True]


def test_a_select_cancelled_after_its_task_was_done_loses_nothing() -> None:
    async def main() -> str:
        happened = asyncio.Event()
        waiting = Await(happened.wait())
        selecting = asyncio.create_task(select(waiting))
        await settle()
        happened.set()
        await asyncio.sleep(0)
        selecting.cancel()
        await asyncio.wait([selecting])
        return f"{selecting.cancelled()} {await waiting.future}"

    assert run(main).result == "True True"


def test_a_cancelled_select_leaves_nothing_behind() -> None:
    sizes: list[int] = []

    async def main() -> None:
        channel: Channel[int] = Channel()
        for _ in range(20):
            try:
                async with asyncio.timeout(1):
                    await select(Receive(channel), Send(channel, 1), Receive(number))
            except TimeoutError:
                continue
        signals = require_machine("the test").signals.channel("number")
        sizes.extend([len(channel._receivers), len(channel._senders), len(signals._receivers)])

    run(main)
    assert set(sizes) == {0}


# Cases are objects


def test_the_result_of_a_case_that_was_not_chosen_is_an_error() -> None:
    async def main() -> int:
        channel = filled(1, 2)
        unchosen = [Receive(Channel[int]()), Receive(channel), Await(echo()), Default()]
        await select(unchosen[0], Receive(channel), *unchosen[1:])
        for case in unchosen:
            with pytest.raises(asyncio.InvalidStateError, match=r"which was not chosen; compare with `is`"):
                case.result()
        return len(channel)

    assert run(main).result == 1


def test_a_case_can_be_used_again_and_has_the_result_of_the_last_time_it_was_chosen() -> None:
    async def main() -> list[Any]:
        receiving = Receive(filled(1, 2))
        results = []
        for cases in [(receiving,), (Default(), receiving), (receiving, Default())]:
            await select(*cases)
            results.append(receiving.result())
        return results

    assert run(main).result == [1, 1, 2]


def test_one_case_can_stand_twice_and_in_several_selects_at_once() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        shared = Receive(channel)
        received: list[int] = []

        async def wait() -> None:
            received.append((await select(shared, shared)).result())

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(wait())
            await settle()
            for value in range(3):
                await channel.send(value)
        return received

    assert run(main).result == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (list, "expected at least one case, found none"),
        (lambda: [Receive(Channel[int]()), 3], r"expected Await\(\.\.\.\), Receive.* or Default\(\), found 3"),
        (lambda: [forever()], r"found <coroutine object forever"),
        (lambda: [Default], r"found <class .*Default'>"),
    ],
)
def test_what_is_no_case_is_refused(make: Callable[[], list[Any]], told: str) -> None:
    async def main() -> str:
        with pytest.raises(TypeError, match=told):
            await select(*make())
        return "refused"

    assert run(main).result == "refused"


# Determinism


async def workers_that_select() -> Any:
    """Hand numbers to workers through selects on both sides, stop them through a channel that closes."""
    work, done, stop = Channel[int](), Channel[str](3), Channel[None]()

    async def worker(name: str) -> None:
        stopping, working = Receive(stop), Receive(work)
        while await select(stopping, working) is working:
            answer = Send(done, f"{name}{await double(working.result())}")
            if await select(stopping, answer) is stopping:
                return

    async def collect() -> list[str]:
        seen: list[str] = []
        pending = list(range(200))
        results = Receive(done)
        while len(seen) < 200:
            sending = [Send(work, pending[0])] if pending else []
            chosen = await select(results, *sending)
            if chosen is results:
                seen.append(results.result())
            else:
                pending.pop(0)
        stop.close()
        return seen

    async with asyncio.TaskGroup() as group:
        for name in "abcde":
            group.create_task(worker(name))
        seen = await collect()
    await echo(seen)
    return sorted(int(one[1:]) for one in seen) == [2 * value for value in range(200)]


SCENARIOS: list[Callable[[], Coroutine[Any, Any, Any]]] = [workers_that_select]


def test_selects_on_both_sides_lose_nothing() -> None:
    ran = Run(workers_that_select).finish()
    assert ran.result is True
    assert_replays(ran, most_cuts=20)


def test_it_decides_the_same_under_every_hash_seed() -> None:
    printed = histories_under_hash_seeds(__name__)
    assert len(printed) == 1
    assert "workers_that_select" in printed.pop()


def test_it_works_in_plain_asyncio() -> None:
    async def main() -> list[Any]:
        channel: Channel[int] = Channel()
        receiving, quick, late = Receive(channel), Await(asyncio.sleep(0, "quick")), Await(asyncio.sleep(60))
        chosen = [await select(late, quick, receiving)]
        sending = asyncio.create_task(channel.send(1))
        chosen.append(await select(late, receiving))
        late.future.cancel()
        await sending
        return [case.result() for case in chosen]

    assert asyncio.run(main()) == ["quick", 1]

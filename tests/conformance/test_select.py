"""`select` and channels on a real worker: over signals, activities, timers and children, hot and cold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.db import transaction

from django_workflows import (
    Await,
    Case,
    Channel,
    InstanceStatus,
    Receive,
    Send,
    Signal,
    WorkflowCancelled,
    activity,
    workflow,
)
from django_workflows.models import ActivityTask, Timer
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .gates import open_gate, wait_at_gate
from .waiting import eventually

number = Signal("select.number", int)
word = Signal("select.word", str)
stop: Signal[None] = Signal("select.stop")


@activity(name="select.held")
def held(key: str) -> str:
    wait_at_gate(key)
    return "activity"


@activity(name="select.double")
def double(value: int) -> int:
    return 2 * value


@workflow(name="select.child")
async def child(value: int) -> str:
    return f"child {await double(value)}"


@workflow(name="select.each_in_turn")
async def each_in_turn() -> list[str]:
    """Take whatever comes: a signal, an activity, a child, and a timer that starts when the rest is there."""
    words, working = Receive(word), Await(held(workflow.info().instance_id))
    cases: list[Case[str]] = [words, working]
    seen = []
    while len(seen) < 3:
        chosen = await workflow.select(*cases)
        seen.append(chosen.result())
        if chosen is working:
            cases[1] = Await(child(4))
    pause = Await(workflow.sleep(0.01))
    chosen = await workflow.select(words, pause)
    return [*seen, "timer" if chosen is pause else "wrong"]


def test_select_over_a_signal_an_activity_a_child_and_a_timer(worker: Worker) -> None:
    handle = each_in_turn.start()
    eventually(lambda: "ActivityScheduled" in [event.type for event in handle.history()])
    handle.signal(word, "signal")
    eventually(lambda: "SignalReceived" in [event.type for event in handle.history()])
    open_gate(handle.instance_id)
    assert handle.result(timeout=20) == ["signal", "activity", "child 8", "timer"]


@workflow(name="select.unread")
async def unread() -> list[Any]:
    """Leave the numbers unread while a word is there, then receive them."""
    await stop.receive()
    words, numbers = Receive(word), Receive(number)
    seen: list[Any] = []
    for _ in range(4):
        seen.append((await workflow.select(words, numbers)).result())
    return [*seen, await number.receive()]


def test_signals_that_were_not_chosen_are_received_later_in_order(consistent_tables: None, cache_size: int) -> None:
    handle = unread.start()
    with transaction.atomic():
        for value in (1, 2, 3):
            handle.signal(number, value)
        for text in ("a", "b"):
            handle.signal(word, text)
        handle.signal(stop)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=20) == ["a", "b", 1, 2, 3]


@workflow(name="select.overdue")
async def overdue() -> str:
    """Wait for a word until a timer fires, while another timer and an activity go on."""
    late, never = Await(workflow.timer(0.05, name="deadline")), Await(asyncio.sleep(3600))
    chosen = await workflow.select(Receive(word), never, late)
    never.future.cancel()
    return "late" if chosen is late else "wrong"


def test_select_with_a_deadline(worker: Worker) -> None:
    handle = overdue.start()
    assert handle.result(timeout=20) == "late"
    assert [event.type for event in handle.history()] == [
        "InstanceStarted", "TimerStarted", "TimerStarted", "TimerFired", "TimerCancelled", "InstanceCompleted",
    ]  # fmt: skip


@workflow(name="select.pipeline")
async def pipeline(count: int) -> list[int]:
    """Double numbers by activities of three workers, fed and drained through channels."""
    numbers, doubled = Channel[int](), Channel[int](2)

    async def work() -> None:
        async for value in numbers:
            await doubled.send(await double(value))

    async def feed_and_drain() -> list[int]:
        received: list[int] = []
        results, pending = Receive(doubled), list(range(count))
        while len(received) < count:
            sending = [Send(numbers, pending[0])] if pending else []
            if await workflow.select(results, *sending) is results:
                received.append(results.result())
            else:
                del pending[0]
        numbers.close()
        return received

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(work())
        return await feed_and_drain()


def test_a_pipeline_of_channels_and_activities_loses_nothing(worker: Worker) -> None:
    handle = pipeline.start(30)
    assert sorted(handle.result(timeout=30)) == [2 * value for value in range(30)]


@workflow(name="select.cancelled")
async def cancelled() -> None:
    await workflow.select(
        Receive(word), Await(held(workflow.info().instance_id)), Await(workflow.sleep(3600)), Send(Channel[int](), 1)
    )


def test_a_cancelled_select_ends_the_instance_and_what_it_awaited(worker: Worker) -> None:
    handle = cancelled.start()
    eventually(lambda: "TimerStarted" in [event.type for event in handle.history()])
    handle.cancel()
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=20)
    open_gate(handle.instance_id)
    assert handle.status == InstanceStatus.CANCELLED
    assert not ActivityTask.objects.exists()
    assert not Timer.objects.exists()


@workflow(name="select.for_ever")
async def for_ever(total: int, rounds: int) -> int:
    """Add up numbers until told to stop, in a new execution for every three of them."""
    numbers, stopping = Receive(number), Receive(stop)
    for _ in range(3):
        if await workflow.select(numbers, stopping) is stopping:
            return total
        total += numbers.result()
    workflow.continue_as_new(total, rounds + 1)


def test_signals_that_no_select_took_go_on_to_the_next_execution(worker: Worker) -> None:
    handle = for_ever.start(0, 0)
    for value in range(20):
        handle.signal(number, value)
    handle.signal(stop)
    assert handle.result(timeout=30) == sum(range(20))

"""Signals: in order, each once, whenever they come."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from django.db import connections, transaction

from django_workflows import InstanceStatus, PayloadError, Signal, WorkflowHandle, activity, workflow
from django_workflows.models import InboxEvent
from django_workflows.testing import running_worker
from django_workflows.worker import finder
from django_workflows.worker.worker import Worker

from .gates import note, open_gate, wait_at_gate, wait_for_notes
from .store_support import elsewhere, skip_without_row_locks
from .waiting import eventually


@dataclass
class Order:
    number: int
    placed_at: datetime
    tags: set[str]


number = Signal("signals.number", int)
text = Signal("signals.text", str)
order = Signal("signals.order", Order)
anything = Signal("signals.anything")
done: Signal[None] = Signal("signals.done")


def types(handle: WorkflowHandle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


def is_open(handle: WorkflowHandle[Any]) -> bool:
    return "InstanceStarted" in types(handle)


@workflow(name="signals.receive_some")
async def receive_some(count: int) -> list[int]:
    return [await number.receive() for _ in range(count)]


def test_a_signal_before_the_workflow_listens_is_kept(consistent_tables: None, cache_size: int) -> None:
    handle = receive_some.start(2)
    handle.signal(number, 1)
    handle.signal(number, 2)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == [1, 2]


def test_a_signal_while_the_workflow_listens_wakes_it(worker: Worker) -> None:
    handle = receive_some.start(2)
    eventually(lambda: is_open(handle))
    handle.signal(number, 1)
    eventually(lambda: "SignalReceived" in types(handle))
    handle.signal("signals.number", 2)
    assert handle.result(timeout=10) == [1, 2]


def test_ten_signals_arrive_in_order(worker: Worker) -> None:
    handle = receive_some.start(10)
    for value in range(10):
        handle.signal(number, value)
    assert handle.result(timeout=10) == list(range(10))
    assert types(handle).count("SignalReceived") == 10


def test_signals_from_one_transaction_arrive_in_order_after_its_commit(worker: Worker) -> None:
    handle = receive_some.start(10)
    eventually(lambda: is_open(handle))
    with transaction.atomic():
        for value in range(10):
            handle.signal(number, value)
        assert types(handle) == ["InstanceStarted"]
    assert handle.result(timeout=10) == list(range(10))


def test_signals_of_two_senders_keep_each_sender_s_order(worker: Worker) -> None:
    handle = receive_some.start(40)

    def send(first: int) -> None:
        for value in range(first, first + 20):
            handle.signal(number, value)
        connections.close_all()

    senders = [threading.Thread(target=send, args=(first,)) for first in (0, 100)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    received = handle.result(timeout=20)
    assert [value for value in received if value < 100] == list(range(20))
    assert [value for value in received if value >= 100] == list(range(100, 120))


@workflow(name="signals.receive_two")
async def receive_two() -> list[str]:
    return [await text.receive(), await text.receive()]


def test_a_signal_of_a_long_transaction_is_not_overtaken_by_the_next_of_its_sender(
    consistent_tables: None, cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row has an id that polls have passed when it becomes visible."""
    skip_without_row_locks()
    monkeypatch.setattr(finder, "_WINDOW", 0.0)
    monkeypatch.setattr(finder, "_LOOK_BACK", 3600.0)
    with running_worker(sticky_cache_size=cache_size):
        handle = receive_two.start()
        eventually(lambda: is_open(handle))
        with elsewhere(lambda: handle.signal(text, "first"), "commit"):
            other = receive_some.start(1)
            other.signal(number, 1)
            assert other.result(timeout=10) == [1]
        handle.signal(text, "second")
        assert handle.result(timeout=10) == ["first", "second"]


@workflow(name="signals.receive_typed")
async def receive_typed() -> list[Any]:
    first = await order.receive()
    return [
        type(first).__name__,
        first.number,
        first.placed_at.isoformat(),
        sorted(first.tags),
        await anything.receive(),
    ]


def test_values_have_the_signal_s_type(worker: Worker) -> None:
    handle = receive_typed.start()
    handle.signal(order, Order(7, datetime.fromisoformat("2026-03-01T12:00:00+00:00"), {"b", "a"}))
    handle.signal(anything, {"any": ["thing"]})
    assert handle.result(timeout=10) == ["Order", 7, "2026-03-01T12:00:00+00:00", ["a", "b"], {"any": ["thing"]}]


def test_a_value_that_cannot_be_stored_is_refused_by_the_client(consistent_tables: None) -> None:
    handle = receive_some.start(1)
    unstorable: Any = object()
    with pytest.raises(PayloadError, match=r"signal 'signals\.number'"):
        handle.signal(number, unstorable)
    assert InboxEvent.objects.filter(type="SignalReceived").count() == 0


@workflow(name="signals.iterate")
async def iterate() -> list[int]:
    received = []
    async for value in number:
        if value < 0:
            break
        received.append(value)
    return received


def test_async_for_over_a_signal(worker: Worker) -> None:
    handle = iterate.start()
    with transaction.atomic():
        for value in (3, 1, 2, -1, 9):
            handle.signal(number, value)
    assert handle.result(timeout=10) == [3, 1, 2]


@workflow(name="signals.receive_nowait")
async def receive_nowait() -> list[int | str]:
    await done.receive()
    received: list[int | str] = []
    try:
        while True:
            received.append(number.receive_nowait())
    except asyncio.QueueEmpty:
        received.append("empty")
    return received


def test_receive_nowait_takes_what_has_arrived(worker: Worker) -> None:
    handle = receive_nowait.start()
    handle.signal(number, 1)
    handle.signal(number, 2)
    handle.signal(done)
    assert handle.result(timeout=10) == [1, 2, "empty"]


@workflow(name="signals.two_listeners")
async def two_listeners() -> list[list[int]]:
    received: list[list[int]] = [[], []]

    async def listen(mine: list[int]) -> None:
        mine.append(await number.receive())

    tasks = [asyncio.create_task(listen(mine)) for mine in received]
    await asyncio.gather(*tasks)
    return received


def test_each_signal_reaches_one_listener_first_come_first_served(worker: Worker) -> None:
    handle = two_listeners.start()
    handle.signal(number, 1)
    handle.signal(number, 2)
    assert handle.result(timeout=10) == [[1], [2]]


@workflow(name="signals.cancelled_listener")
async def cancelled_listener() -> int:
    with_timeout = asyncio.create_task(asyncio.wait_for(number.receive(), 0.05))
    try:
        await with_timeout
    except TimeoutError:
        note(workflow.info().instance_id, "timed out")
    return await number.receive()


def test_a_listener_that_gave_up_takes_no_signal(worker: Worker) -> None:
    handle = cancelled_listener.start()
    wait_for_notes(handle.instance_id)
    handle.signal(number, 5)
    assert handle.result(timeout=10) == 5


# What does not fit


def test_a_value_that_does_not_fit_is_kept_and_logged_once(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    handle = receive_some.start(2)
    with caplog.at_level(logging.WARNING, logger="django_workflows"):
        handle.signal("signals.number", "not a number")
        handle.signal(number, 1)
        eventually(lambda: types(handle).count("SignalReceived") == 2)
        assert handle.status == InstanceStatus.RUNNING
        handle.signal(number, 2)
        assert handle.result(timeout=10) == [1, 2]
    values = [event.data["value"] for event in handle.history() if event.type == "SignalReceived"]
    assert values == ["not a number", 1, 2]
    complaints = [record for record in caplog.records if "signals.number" in record.getMessage()]
    assert len(complaints) == 1
    assert "int" in complaints[0].getMessage()


def test_a_signal_of_an_unknown_name_changes_nothing(worker: Worker) -> None:
    handle = receive_some.start(1)
    handle.signal("nobody listens", 1)
    handle.signal(number, 2)
    assert handle.result(timeout=10) == [2]


# Many, and across executions


def test_twelve_hundred_unread_signals_are_all_received(consistent_tables: None, cache_size: int) -> None:
    handle = receive_some.start(1200)
    with transaction.atomic():
        for value in range(1200):
            handle.signal(number, value)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=60) == list(range(1200))
    assert InboxEvent.objects.count() == 0


@workflow(name="signals.one_per_execution")
async def one_per_execution(total: int, received: list[int]) -> list[int]:
    received.append(await number.receive())
    if len(received) < total:
        workflow.continue_as_new(total, received)
    return received


def test_unread_signals_survive_continue_as_new(consistent_tables: None, cache_size: int) -> None:
    handle = one_per_execution.start(5, [])
    for value in range(5):
        handle.signal(number, value)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=20) == [0, 1, 2, 3, 4]


@activity(name="signals.wait_for_test")
def wait_for_test(key: str) -> None:
    wait_at_gate(key)


@workflow(name="signals.last_step")
async def last_step(received: list[int]) -> list[int]:
    """The first execution ends without reading; what arrives in its last step is the second one's."""
    if not received:
        await wait_for_test(workflow.info().instance_id)
        workflow.continue_as_new([-1])
    return [await number.receive(), await number.receive()]


def test_a_signal_during_the_last_step_reaches_the_next_execution(worker: Worker) -> None:
    """One signal is in the inbox when the execution ends, the other one comes while or after it does."""
    handle = last_step.start([])
    eventually(lambda: "ActivityScheduled" in types(handle))
    handle.signal(number, 1)
    open_gate(handle.instance_id)
    handle.signal(number, 2)
    assert handle.result(timeout=10) == [1, 2]


@workflow(name="signals.race_the_end")
async def race_the_end(rounds: int, received: list[int]) -> list[int]:
    """End executions as fast as possible while signals come in."""
    try:
        while True:
            received.append(number.receive_nowait())
    except asyncio.QueueEmpty:
        pass
    if len(received) >= rounds:
        return received
    await asyncio.sleep(0.001)
    workflow.continue_as_new(rounds, received)


def test_no_signal_is_lost_or_doubled_between_executions(worker: Worker) -> None:
    handle = race_the_end.start(60, [])
    for value in range(60):
        handle.signal(number, value)
    assert handle.result(timeout=60) == list(range(60))

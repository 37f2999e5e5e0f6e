"""A message to the open instance of an id, which is started if there is none: both or neither, in one transaction."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import RequestFactory

from django_workflows import (
    InstanceStatus,
    PayloadError,
    ResultInTransactionError,
    RetryPolicy,
    Signal,
    UpdateHandle,
    WorkflowHandle,
    workflow,
)
from django_workflows.models import InboxEvent, WorkflowInstance, WorkflowUpdate
from django_workflows.store import claims, leftovers
from django_workflows.store.database import Database
from django_workflows.store.work import TurnBatch
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .samples import nothing_is_stored
from .store_support import claim, commit, completed, elsewhere, first_step, register, skip_without_row_locks
from .waiting import eventually, in_threads

pytestmark = pytest.mark.django_db(transaction=True)

number: Signal[int] = Signal("with_start.number", int)


@workflow(name="with_start.collect")
async def collect(count: int) -> list[int]:
    return [await number.receive() for _ in range(count)]


@workflow(name="with_start.Counter")
class Counter:
    def __init__(self, start: int) -> None:
        self.total = start
        self.done = False

    async def run(self, start: int) -> int:
        await workflow.wait_condition(lambda: self.done)
        return self.total

    @workflow.update
    def add(self, value: int) -> int:
        self.total += value
        return self.total

    @workflow.signal
    def finish(self) -> None:
        self.done = True


counter = Counter.using(instance_id="counter")  # type: ignore[attr-defined]
collector = collect.using(instance_id="collector")


def executions() -> int:
    return WorkflowInstance.objects.count()


def test_it_starts_the_instance_with_the_signal_waiting(worker: Worker) -> None:
    handle = collector.signal_with_start(number, 5, 1)
    assert isinstance(handle, WorkflowHandle)
    assert handle.result(timeout=20) == [5]


def test_it_signals_the_instance_that_is_open_and_ignores_the_arguments(worker: Worker) -> None:
    handles = [collector.signal_with_start(number, value, count) for value, count in ((1, 3), (2, 9), (3, 9))]
    assert handles[0].result(timeout=20) == [1, 2, 3]
    assert executions() == 1


def test_a_name_will_do_and_a_handler_gets_it_before_the_code_runs(worker: Worker) -> None:
    assert collector.signal_with_start("with_start.number", 5, 1).result(timeout=20) == [5]
    assert counter.signal_with_start(Counter.finish, None, 100).result(timeout=20) == 100


def test_after_the_close_it_starts_anew(worker: Worker) -> None:
    assert collector.signal_with_start(number, 1, 1).result(timeout=20) == [1]
    assert collector.signal_with_start(number, 2, 1).result(timeout=20) == [2]
    assert executions() == 2


def test_an_update_starts_the_instance_and_is_answered(worker: Worker) -> None:
    assert counter.update_with_start(Counter.add.request(5), 100).result(timeout=20) == 105
    assert counter.update_with_start(Counter.add.request(value=6), 100).result(timeout=20) == 111
    counter.signal_with_start(Counter.finish, None, 100)
    assert counter.handle("counter").result(timeout=20) == 111
    assert executions() == 1


def test_from_async_code(worker: Worker) -> None:
    async def use_them() -> None:
        handle = await collector.asignal_with_start(number, 1, 1)
        assert await handle.aresult(timeout=20) == [1]
        update = await counter.aupdate_with_start(Counter.add.request(5), 100)
        assert await update.aresult(timeout=20) == 105
        await counter.handle("counter").aterminate()

    async_to_sync(use_them)()


# Together with the caller's transaction


def send_signal() -> WorkflowHandle[list[int]]:
    return collector.signal_with_start(number, 1, 1)


def send_update() -> UpdateHandle[int]:
    return counter.update_with_start(Counter.add.request(1), 1)


both = pytest.mark.parametrize("send", [send_signal, send_update], ids=["signal", "update"])


@both
def test_rolled_back_there_is_neither(send: Callable[[], Any]) -> None:
    with pytest.raises(LookupError), transaction.atomic():
        send()
        raise LookupError
    assert nothing_is_stored()
    assert not WorkflowUpdate.objects.exists()


@both
def test_in_a_savepoint_that_is_rolled_back_there_is_neither(send: Callable[[], Any]) -> None:
    with transaction.atomic(), pytest.raises(LookupError), transaction.atomic():
        send()
        raise LookupError
    assert nothing_is_stored()


def test_under_atomic_requests_both_are_there_after_the_response(worker: Worker) -> None:
    @transaction.atomic
    def view(request: object) -> str:
        return collector.signal_with_start(number, 1, 1).instance_id

    assert view(RequestFactory().post("/")) == "collector"
    assert collector.handle("collector").result(timeout=20) == [1]


@both
def test_waiting_for_the_result_inside_the_transaction_is_refused(send: Callable[[], Any]) -> None:
    with transaction.atomic():
        sent = send()
        with pytest.raises(ResultInTransactionError):
            sent.result(timeout=5)


# The open instance closes without it


@workflow(name="with_start.drain")
async def drain() -> list[int]:
    """Take what is there and end: the next signal may come at any moment."""
    received = [await number.receive()]
    try:
        while True:
            received.append(number.receive_nowait())
    except asyncio.QueueEmpty:
        return received


drained = drain.using(instance_id="drained")


def received() -> list[int]:
    rows = WorkflowInstance.objects.filter(instance_id="drained", status="completed").order_by("id")
    return [value for row in rows for value in json.loads(row.result or "[]")]


def test_no_signal_is_lost_to_instances_that_keep_ending(worker: Worker) -> None:
    for value in range(50):
        drained.signal_with_start(number, value)
    eventually(lambda: sorted(received()) == list(range(50)), timeout=30)
    assert not InboxEvent.objects.exists()


def test_a_signal_that_its_instance_closed_without_starts_the_next(worker: Worker) -> None:
    handle = collect.using(instance_id="collector").start(1)
    with transaction.atomic():  # both are there before the first is read
        handle.signal(number, 1)
        collector.signal_with_start(number, 2, 1)
    first = collect.handle("collector", handle.describe().execution_id)
    assert first.result(timeout=20) == [1]
    eventually(lambda: executions() == 2)
    assert collect.handle("collector").result(timeout=20) == [2]


def test_a_signal_that_starts_an_instance_comes_with_its_start_and_starts_no_other(worker: Worker) -> None:
    deaf = collect.using(instance_id="deaf")
    handle = deaf.signal_with_start(number, 1, 0)
    assert handle.result(timeout=20) == [], "it received nothing"
    assert [event.type for event in handle.history()] == ["InstanceStarted", "InstanceCompleted"]
    assert handle.history()[0].data["signals"] == [{"name": "with_start.number", "value": 1}]
    eventually(lambda: not InboxEvent.objects.exists())
    assert executions() == 1


@pytest.mark.parametrize("parked", [False, True])
def test_signals_in_the_inbox_of_a_terminated_instance_start_nothing(parked: bool) -> None:
    handle = collector.start(1)
    collector.signal_with_start(number, 1, 1)
    if parked:
        InboxEvent.objects.update(queue=None)  # as that of a blocked instance
    handle.terminate()
    collect_leftovers()
    assert executions() == 1
    [row] = InboxEvent.objects.filter(type__startswith="Signal")
    assert (row.type, row.queue) == ("SignalReceived", None), "undelivered"


def test_where_an_application_holds_the_id_a_left_signal_is_sent_later() -> None:
    skip_without_row_locks()
    me = register()
    [loaded] = claim(me, collector.start(1))
    collector.signal_with_start(number, 2, 1)
    assert commit(me, TurnBatch(steps=[first_step(loaded, completed(1))])).committed
    with elsewhere(lambda: collector.start(1), end="rollback"):
        collect_leftovers()
        assert InboxEvent.objects.get().type == "SignalWithStart"
    collect_leftovers()
    with running_worker():
        assert collect.handle("collector").result(timeout=20) == [2]


def collect_leftovers() -> None:
    rows = [row for row in claims.poll_inbox(Database(), ["default"], 0) if row.open_key is None]
    leftovers.collect_inbox(Database(), rows)
    leftovers.sweep(Database())


def test_of_many_at_once_one_starts_and_all_signal() -> None:
    using = collect.using(instance_id="raced")
    answers = in_threads(*[lambda value=value: using.signal_with_start(number, value, 6) for value in range(6)])
    assert not [answer for answer in answers if isinstance(answer, BaseException)], answers
    assert executions() == 1
    with running_worker():
        assert sorted(using.handle("raced").result(timeout=20)) == list(range(6))


# Misuse


def test_wrong_calls_store_nothing() -> None:
    with pytest.raises(ValueError, match=r"using\(instance_id="):
        collect.signal_with_start(number, 1, 1)
    with pytest.raises(ValueError, match="terminate_existing"):
        collect.using(instance_id="x", on_conflict="terminate_existing").signal_with_start(number, 1, 1)
    with pytest.raises(TypeError):
        collector.signal_with_start(number, 1)  # type: ignore[call-arg]
    with pytest.raises(PayloadError, match="signal"):
        collector.signal_with_start(number, float("nan"), 1)  # type: ignore[misc]
    with pytest.raises(PayloadError, match="count"):
        collector.signal_with_start(number, 1, float("inf"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        counter.update_with_start(Counter.add.request(), 1)  # type: ignore[call-arg]
    with pytest.raises(PayloadError, match="value"):
        counter.update_with_start(Counter.add.request(float("nan")), 1)  # type: ignore[arg-type]
    assert nothing_is_stored()


def test_during_the_pause_between_two_attempts_it_signals(worker: Worker) -> None:
    using = pausing.using(instance_id="pausing")
    handle = using.start()
    eventually(lambda: executions() == 2)
    using.signal_with_start(number, 7)
    assert handle.result(timeout=20) == 7
    assert handle.status is InstanceStatus.COMPLETED


@workflow(name="with_start.pausing", retry=RetryPolicy(max_attempts=2))
async def pausing() -> int:
    if workflow.info().attempt == 1:
        raise LookupError("not yet")
    return await number.receive()

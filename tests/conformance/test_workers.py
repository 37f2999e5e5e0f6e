"""Workers in this process: sharing, queues, death, poison, burst."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from django_workflows import InstanceStatus, RetryPolicy, Signal, activity, workflow
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    OpenInstance,
    Timer,
)
from django_workflows.models import Worker as WorkerRow
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker, WorkerOptions
from tests.testapp.models import Effect
from tests.testapp.workflows import greet

from .waiting import eventually
from .workflows import collect, count, word

ready = Signal("ready", str)


@activity(name="workers.here")
def here() -> str:
    return activity.info().queue


@workflow(name="workers.child")
async def child() -> list[str]:
    return [workflow.info().queue, await here()]


@workflow(name="workers.family")
async def family() -> list[str]:
    """Return the queues that the workflow, its activity, its child and the child's activity ran on."""
    return [workflow.info().queue, await here(), *await child()]


@workflow(name="workers.elsewhere")
async def elsewhere(queue: str) -> str:
    return await here.using(queue=queue)()


@workflow(name="workers.long_sleep")
async def long_sleep() -> None:
    await workflow.sleep(3600)


@activity(name="workers.number", retry=RetryPolicy(max_attempts=1))
def number(value: int) -> int:
    return value


@workflow(name="workers.numbers")
async def numbers(value: int) -> int:
    return await number(value)


# Many workers


@pytest.mark.parametrize("size", [2, 4])
def test_workers_share_a_queue_and_record_every_result_once(size: int, cache_size: int) -> None:
    with ExitStack() as stack:
        for _ in range(size):
            stack.enter_context(running_worker(threads=2, sticky_cache_size=cache_size))
        handles = count.start_many([(f"instance {number}", 4) for number in range(30)])
        assert [handle.result(timeout=60) for handle in handles] == [10] * 30
        keys = Effect.objects.values_list("key", "value")
        assert len(keys) == len(set(keys)) == 30 * 8, "each activity had its effect exactly once"
        completed = HistoryEvent.objects.filter(type="ActivityCompleted")
        assert completed.count() == 30 * 8


def test_more_instances_than_places_in_the_cache_all_finish() -> None:
    with running_worker(sticky_cache_size=3) as worker:
        handles = collect.start_many([(2,)] * 25)
        for text in ("first", "second"):
            for handle in handles:
                handle.signal(word, text)
            eventually(lambda: not InboxEvent.objects.exists())
        assert [handle.result(timeout=20) for handle in handles] == [["first", "second"]] * 25
        assert worker.id


def test_instances_move_on_when_their_worker_leaves(cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handles = collect.start_many([(2,)] * 10)
        for handle in handles:
            handle.signal(word, "first")
        eventually(lambda: HistoryEvent.objects.filter(type="SignalReceived").count() == 10)
    assert not OpenInstance.objects.filter(owner_id__isnull=False).exists()
    with running_worker(sticky_cache_size=cache_size):
        for handle in handles:
            handle.signal(word, "second")
        assert [handle.result(timeout=20) for handle in handles] == [["first", "second"]] * 10


def test_stopped_worker_leaves_no_connection_open() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("asks the server for its sessions, which PostgreSQL shows best")

    def sessions() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            return int(cursor.fetchone()[0])

    before = sessions()
    with running_worker(threads=4):
        handles = greet.start_many([("x",)] * 20)
        for handle in handles:
            handle.result(timeout=10)
        assert sessions() > before
    eventually(lambda: sessions() <= before)  # fewer, if a listener of an earlier test was still there


# Queues


def test_worker_takes_nothing_from_queues_that_it_does_not_serve(cache_size: int) -> None:
    other = family.using(queue="other").start()
    with running_worker(queues=("mine",), sticky_cache_size=cache_size):
        assert family.using(queue="mine").start().result(timeout=10) == ["mine"] * 4
        row = OpenInstance.objects.get(pk=other.describe().instance_key)
        assert (row.owner_id, other.history()) == (None, [])
    with running_worker(queues=("other",), sticky_cache_size=cache_size):
        assert other.result(timeout=10) == ["other"] * 4


def test_worker_serves_several_queues(cache_size: int) -> None:
    with running_worker(queues=("one", "two"), sticky_cache_size=cache_size):
        for queue in ("one", "two"):
            assert family.using(queue=queue).start().result(timeout=10) == [queue] * 4


def test_activity_may_have_a_queue_of_its_own_and_its_result_comes_back(cache_size: int) -> None:
    with running_worker(queues=("flow",), sticky_cache_size=cache_size):
        handle = elsewhere.using(queue="flow").start("db")
        task = eventually(lambda: ActivityTask.objects.filter(queue="db").first())
        assert task.owner_id is None
        with running_worker(queues=("db",)):
            assert handle.result(timeout=10) == "db"


def test_workflow_only_and_activity_only_workers_share_the_work(cache_size: int) -> None:
    with running_worker(activities=False, sticky_cache_size=cache_size):
        handle = family.start()
        task = eventually(ActivityTask.objects.first)
        assert (task.owner_id, task.attempt) == (None, 0)
        with running_worker(workflows=False) as runner:
            assert handle.result(timeout=10) == ["default"] * 4
            assert not OpenInstance.objects.filter(owner_id=runner.id).exists()


def test_activity_only_worker_leaves_workflow_code_alone() -> None:
    with running_worker(workflows=False):
        handle = family.start()
        with running_worker(queues=("other",)):
            assert family.using(queue="other").start().result(timeout=10) == ["other"] * 4
        assert handle.history() == []
        assert InboxEvent.objects.count() == 1


# Death


def test_worker_that_was_declared_dead_starts_over_and_loses_nothing(cache_size: int) -> None:
    with running_worker(lease=timedelta(seconds=1.5), sticky_cache_size=cache_size) as worker:
        waiting = collect.start(2)
        waiting.signal(word, "before")
        sleeping = long_sleep.start()
        eventually(lambda: len(waiting.history()) == 2 and Timer.objects.exists())
        first = worker.id

        WorkerRow.objects.filter(pk=first).update(state=WorkerRow.State.DEAD)

        waiting.signal(word, "after")
        assert waiting.result(timeout=15) == ["before", "after"]
        eventually(lambda: worker.id != first)
        assert not OpenInstance.objects.filter(owner_id=first).exists()
        Timer.objects.update(wake_at=timezone.now(), fire_at=timezone.now())
        sleeping.cancel()
        eventually(lambda: sleeping.status.is_closed)
    assert WorkerRow.objects.count() == 2


def test_result_of_an_attempt_that_outlived_its_worker_is_recorded_once(cache_size: int) -> None:
    release = threading.Event()
    attempts: list[int] = []

    def body() -> int:
        attempts.append(activity.info().attempt)
        if len(attempts) == 1:
            release.wait(timeout=20)
        return activity.info().attempt

    handle = dynamic.start()
    _bodies.append(body)
    try:
        with running_worker(lease=timedelta(seconds=1.5), sticky_cache_size=cache_size) as worker:
            eventually(lambda: attempts == [1])
            WorkerRow.objects.filter(pk=worker.id).update(state=WorkerRow.State.DEAD)
            assert handle.result(timeout=20) == 2
            release.set()
            # Give the late result every chance to arrive before the look at the history.
            assert greet.start("afterwards").result(timeout=10) == "afterwards world"
    finally:
        release.set()
        _bodies.clear()
    assert attempts == [1, 2]
    assert [event.data for event in handle.history() if event.type == "ActivityCompleted"] == [
        {"command": 1, "result": 2}
    ]


_bodies: list[Any] = []


@activity(name="workers.run_body")
def run_body() -> int:
    result: int = _bodies[-1]()
    return result


@workflow(name="workers.dynamic")
async def dynamic() -> int:
    return await run_body()


def test_slow_activity_on_a_healthy_worker_is_not_run_twice(cache_size: int) -> None:
    """It takes three leases, which two workers could use to take it."""
    renewals: list[int] = []

    def body() -> int:
        row = WorkerRow.objects.get(pk=ActivityTask.objects.values_list("owner_id", flat=True)[0])
        start = row.beat
        eventually(lambda: WorkerRow.objects.get(pk=row.pk).beat >= start + 9, timeout=20)
        renewals.append(1)
        return activity.info().attempt

    _bodies.append(body)
    try:
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(running_worker(lease=timedelta(seconds=1), sticky_cache_size=cache_size))
            assert dynamic.start().result(timeout=30) == 1
    finally:
        _bodies.clear()
    assert renewals == [1]


# Burst


def run_in_burst(**options: Any) -> None:
    thread = threading.Thread(target=Worker(WorkerOptions(burst=True, **options)).run)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_burst_ends_when_nothing_is_left_to_do_now(cache_size: int) -> None:
    handles = [*greet.start_many([("x",)] * 20), family.start()]
    sleeping, waiting = long_sleep.start(), collect.start(1)

    run_in_burst(sticky_cache_size=cache_size)

    assert {handle.status for handle in handles} == {InstanceStatus.COMPLETED}
    assert sleeping.status is waiting.status is InstanceStatus.RUNNING
    assert not OpenInstance.objects.filter(owner_id__isnull=False).exists()
    assert set(WorkerRow.objects.values_list("state", flat=True)) == {WorkerRow.State.DEAD}


def test_burst_with_nothing_to_do_ends_at_once() -> None:
    run_in_burst()
    assert WorkerRow.objects.count() == 1


def test_burst_goes_on_where_the_last_one_ended(cache_size: int) -> None:
    handle = collect.start(2)
    for text in ("one", "two"):
        handle.signal(word, text)
        run_in_burst(sticky_cache_size=cache_size)
    assert handle.result(timeout=0) == ["one", "two"]


# The worker in a process that does other things


def test_worker_does_not_touch_the_event_loop_or_connections_of_its_host() -> None:
    before = set(connections.all(initialized_only=True))
    with running_worker():
        assert numbers.start(1).result(timeout=10) == 1
        assert asyncio.run(_nothing()) is None
    assert set(connections.all(initialized_only=True)) == before


async def _nothing() -> None: ...

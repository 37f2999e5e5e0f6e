"""Timers: sleeping, timeouts, cancelled ones, those that came due while nobody worked, and what sleepers cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_workflows import InstanceStatus, Signal, WorkflowHandle, workflow
from django_workflows.models import HistoryEvent, OpenInstance, Timer, WorkflowInstance
from django_workflows.store import claims
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .waiting import eventually

DAY = 86400.0
go_on: Signal[None] = Signal("timers.go_on")
stop: Signal[None] = Signal("timers.stop")


def types(handle: WorkflowHandle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


def timers(handle: WorkflowHandle[Any]) -> list[Timer]:
    return list(Timer.objects.filter(instance_id=handle.describe().pk))


def make_due(handle: WorkflowHandle[Any], after: timedelta) -> None:
    """Move an instance's past back, so that `after` has gone by since; only while no worker holds it."""
    instance = handle.describe()
    for timer in Timer.objects.filter(instance_id=instance.pk):
        key = {"instance_id": timer.instance_id, "command": timer.command}
        Timer.objects.filter(**key).update(fire_at=timer.fire_at - after, wake_at=timer.wake_at - after)
    for event in HistoryEvent.objects.filter(instance_id=instance.pk):
        HistoryEvent.objects.filter(instance_id=instance.pk, sequence=event.sequence).update(
            time=event.time - after, data=_moved_back(event.data, after)
        )
    WorkflowInstance.objects.filter(pk=instance.pk).update(created_at=instance.created_at - after)


def _moved_back(data: str, after: timedelta) -> str:
    fields = json.loads(data)
    if "fire_at" in fields:
        fields["fire_at"] = (datetime.fromisoformat(fields["fire_at"]) - after).isoformat()
    return json.dumps(fields)


# Sleeping


@workflow(name="timers.sleep_in_all_ways")
async def sleep_in_all_ways() -> list[bool]:
    slept = []
    delay = timedelta(milliseconds=30)
    sleeps: list[Callable[[], Coroutine[Any, Any, None]]] = [
        lambda: asyncio.sleep(0.03),
        lambda: workflow.sleep(0.03),
        lambda: workflow.sleep(delay),
        lambda: workflow.timer(delay, name="egg"),
    ]
    for sleep in sleeps:
        before = workflow.now()
        await sleep()
        slept.append(workflow.now() - before >= delay)
    return slept


def test_sleeping_lasts_at_least_its_delay(worker: Worker) -> None:
    handle = sleep_in_all_ways.start()
    assert handle.result(timeout=10) == [True] * 4
    assert types(handle) == ["InstanceStarted", *["TimerStarted", "TimerFired"] * 4, "InstanceCompleted"]
    assert [event.data.get("name") for event in handle.history() if event.type == "TimerStarted"][3] == "egg"
    assert timers(handle) == []


@workflow(name="timers.do_not_sleep")
async def do_not_sleep() -> list[str]:
    order: list[str] = []

    async def other() -> None:
        order.append("another task")

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    order.append("after sleep(0)")
    await asyncio.sleep(-1)
    await workflow.sleep(0)
    await workflow.sleep(timedelta(seconds=-5))
    await task
    return order


def test_zero_and_negative_delays_only_yield(worker: Worker) -> None:
    handle = do_not_sleep.start()
    assert handle.result(timeout=10) == ["another task", "after sleep(0)"]
    assert types(handle) == ["InstanceStarted", "InstanceCompleted"]


@workflow(name="timers.time_out")
async def time_out(kind: str) -> str:
    started = workflow.now()
    try:
        if kind == "timeout":
            async with asyncio.timeout(0.05):
                await go_on.receive()
        elif kind == "wait_for":
            await asyncio.wait_for(go_on.receive(), 0.05)
        elif kind == "wait_condition":
            await workflow.wait_condition(lambda: False, timeout=0.05)
        elif kind == "timeout_at":
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + 0.05):
                await go_on.receive()
        else:
            await asyncio.wait_for(go_on.receive(), -1)
    except TimeoutError:
        return "late" if workflow.now() - started >= timedelta(seconds=0.05) else "at once"
    return "in time"


@pytest.mark.parametrize("kind", ["timeout", "wait_for", "wait_condition", "timeout_at"])
def test_timeouts_are_durable_timers(worker: Worker, kind: str) -> None:
    handle = time_out.start(kind)
    assert handle.result(timeout=10) == "late"
    assert types(handle) == ["InstanceStarted", "TimerStarted", "TimerFired", "InstanceCompleted"]


def test_a_timeout_in_the_past_is_over_at_once(worker: Worker) -> None:
    handle = time_out.start("past")
    assert handle.result(timeout=10) == "at once"
    assert "TimerStarted" not in types(handle)


@workflow(name="timers.in_time")
async def in_time() -> str:
    async with asyncio.timeout(DAY):
        await go_on.receive()
    return "in time"


def test_a_timeout_that_is_not_needed_leaves_no_timer(worker: Worker) -> None:
    handle = in_time.start()
    eventually(lambda: timers(handle))
    handle.signal(go_on)
    assert handle.result(timeout=10) == "in time"
    assert types(handle)[-3:] == ["SignalReceived", "TimerCancelled", "InstanceCompleted"]
    assert timers(handle) == []


@workflow(name="timers.sleep_long")
async def sleep_long(days: float) -> float:
    before = workflow.time()
    await workflow.sleep(timedelta(days=days))
    return workflow.time() - before


def test_thirty_days(consistent_tables: None, cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handle = sleep_long.start(30)
        timer = eventually(lambda: timers(handle))[0]
        assert timer.fire_at - handle.describe().created_at >= timedelta(days=30)
        assert timer.wake_at == timer.fire_at
    make_due(handle, timedelta(days=29))
    with running_worker(sticky_cache_size=cache_size):
        time_out.start("timeout").result(timeout=10)
        assert handle.status == InstanceStatus.RUNNING
    make_due(handle, timedelta(days=1))
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) >= 30 * DAY


# Cancelling


@workflow(name="timers.cancel_unrecorded")
async def cancel_unrecorded() -> str:
    task = asyncio.create_task(asyncio.sleep(DAY))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(DAY):
        await asyncio.sleep(0)
    return "done"


def test_a_timer_cancelled_before_it_is_recorded_leaves_no_trace(worker: Worker) -> None:
    handle = cancel_unrecorded.start()
    assert handle.result(timeout=10) == "done"
    assert types(handle) == ["InstanceStarted", "InstanceCompleted"]


@workflow(name="timers.cancel_recorded")
async def cancel_recorded(times: int) -> str:
    task = asyncio.create_task(asyncio.sleep(DAY))
    await go_on.receive()
    for _ in range(times):
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    task.cancel()
    await go_on.receive()
    return "cancelled" if task.cancelled() else "slept"


@pytest.mark.parametrize("times", [1, 2])
def test_a_recorded_timer_is_cancelled_once(worker: Worker, times: int) -> None:
    handle = cancel_recorded.start(times)
    eventually(lambda: timers(handle))
    handle.signal(go_on)
    eventually(lambda: "TimerCancelled" in types(handle))
    assert timers(handle) == []
    handle.signal(go_on)
    assert handle.result(timeout=10) == "cancelled"
    assert types(handle).count("TimerCancelled") == 1
    commands = [event.data["command"] for event in handle.history() if event.type.startswith("Timer")]
    assert commands == [1, 1]


@workflow(name="timers.cancel_when_due")
async def cancel_when_due() -> int:
    """Every signal cancels a timer at about the moment when it is due."""
    count = 0
    while True:
        try:
            async with asyncio.timeout(0.02):
                await go_on.receive()
            count += 1
        except TimeoutError:
            pass
        try:
            stop.receive_nowait()
            return count
        except asyncio.QueueEmpty:
            continue


def test_a_timer_that_is_due_while_it_is_cancelled_fires_once_or_not_at_all(worker: Worker) -> None:
    handle = cancel_when_due.start()
    for _ in range(30):
        handle.signal(go_on)
    handle.signal(stop)
    handle.signal(go_on)
    assert handle.result(timeout=20) <= 31
    ends = [event.data["command"] for event in handle.history() if event.type in ("TimerFired", "TimerCancelled")]
    starts = [event.data["command"] for event in handle.history() if event.type == "TimerStarted"]
    assert sorted(ends) == sorted(starts)
    assert timers(handle) == []


@workflow(name="timers.due_with_cancel")
async def due_with_cancel() -> str:
    sleeper = asyncio.create_task(asyncio.sleep(60))
    await go_on.receive()
    sleeper.cancel()
    await asyncio.gather(sleeper, return_exceptions=True)
    return "cancelled" if sleeper.cancelled() else "slept"


def test_a_timer_that_is_due_together_with_its_cancelling_message(consistent_tables: None, cache_size: int) -> None:
    """Both wait when a worker comes: whichever is first, there is one outcome and no error."""
    with running_worker(sticky_cache_size=cache_size):
        handle = due_with_cancel.start()
        eventually(lambda: timers(handle))
    make_due(handle, timedelta(minutes=2))
    handle.signal(go_on)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) in ("cancelled", "slept")
    assert sum(types(handle).count(kind) for kind in ("TimerFired", "TimerCancelled")) == 1


@workflow(name="timers.leave_one_behind")
async def leave_one_behind(rest: int) -> str:
    if rest:
        asyncio.create_task(asyncio.sleep(0.5))  # noqa: RUF006
        await go_on.receive()
        workflow.continue_as_new(0)
    before = workflow.time()
    await asyncio.sleep(1.5)
    return "slept" if workflow.time() - before >= 1.5 else "woken by a timer of the execution before"


def test_a_timer_of_an_execution_does_not_fire_in_the_next(worker: Worker) -> None:
    handle = leave_one_behind.start(1)
    eventually(lambda: timers(handle))
    handle.signal(go_on)
    assert handle.result(timeout=10) == "slept"


# Nobody was there


@workflow(name="timers.note_order")
async def note_order(delays: list[float]) -> list[float]:
    order: list[float] = []

    async def sleep(delay: float) -> None:
        await asyncio.sleep(delay)
        order.append(delay)

    await asyncio.gather(*(sleep(delay) for delay in delays))
    return order


def test_timers_that_came_due_while_all_workers_were_down_fire_in_due_order(
    consistent_tables: None, cache_size: int
) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handle = note_order.start([300, 100, 500, 200, 400])
        eventually(lambda: len(timers(handle)) == 5)
    make_due(handle, timedelta(minutes=10))
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == [100, 200, 300, 400, 500]
    fired = [event.time for event in handle.history() if event.type == "TimerFired"]
    assert fired == sorted(fired)


# Many sleepers

SLEEPERS = 10_000


def _insert_sleepers() -> None:
    now = datetime.now(UTC)
    instances = WorkflowInstance.objects.bulk_create(
        [
            WorkflowInstance(
                instance_id=f"sleeper-{number}", instance_key=f"{number:032x}", execution_id=f"{number:032x}",
                name="timers.sleep_long", queue="default", input="[[30],{}]",
            )
            for number in range(SLEEPERS)
        ],
        batch_size=1000,
    )  # fmt: skip
    keys = dict(WorkflowInstance.objects.values_list("instance_key", "pk"))
    assert len(keys) == len(instances) == SLEEPERS
    OpenInstance.objects.bulk_create(
        [OpenInstance(open_key=key, chain_id=pk, instance_id=pk, queue="default") for key, pk in keys.items()],
        batch_size=1000,
    )
    wake_at = now + timedelta(days=30)
    Timer.objects.bulk_create(
        [Timer(instance_id=pk, command=1, chain_id=pk, fire_at=wake_at, wake_at=wake_at) for pk in keys.values()],
        batch_size=1000,
    )
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE TABLE {Timer._meta.db_table}" if connection.vendor == "mysql" else "ANALYZE")


def _queries_of(poll: Callable[[], object]) -> list[str]:
    """Return the statements as the driver took them, values filled in."""
    with CaptureQueriesContext(connection) as captured:
        poll()
    return [query["sql"] for query in captured]


def _plan(sql: str) -> str:
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN ANALYZE", "mysql": "ANALYZE FORMAT=JSON"}
    with connection.cursor() as cursor:
        cursor.execute(f"{explain[connection.vendor]} {sql.replace('%', '%%')}")
        return "\n".join(" ".join(map(str, row)) for row in cursor.fetchall())


def test_sleepers_do_not_slow_the_poll(consistent_tables: None) -> None:
    _insert_sleepers()
    try:
        database = Database()
        now = database.now()
        (sql,) = _queries_of(lambda: claims.poll_timers(database, 1, ["default"], now))
        plan = _plan(sql)
        assert "dwf_timer_wake" in plan, plan
        if connection.vendor == "postgresql":
            assert "Seq Scan" not in plan, plan
        if connection.vendor == "sqlite":
            assert "SCAN" not in plan, plan
        (sql,) = _queries_of(lambda: claims.may_find(database, ["default"], 0, now, workflows=True, activities=False))
        assert "dwf_timer_wake" in (plan := _plan(sql)), plan
        assert not claims.may_find(database, ["default"], 0, now, workflows=True, activities=True)
        assert claims.poll_timers(database, 1, ["default"], now) == []
    finally:
        for model in (Timer, OpenInstance, WorkflowInstance):
            model.objects.all().delete()

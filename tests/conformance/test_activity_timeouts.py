"""The four timeouts of activities: what each bounds, its own error, and what becomes of late results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_workflows import (
    ActivityTimeout,
    HeartbeatTimeout,
    RetryPolicy,
    ScheduleToCloseTimeout,
    ScheduleToStartTimeout,
    StartToCloseTimeout,
    WorkflowHandle,
    activity,
    workflow,
)
from django_workflows.models import ActivityTask
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .gates import await_gate, note, notes, open_gate, wait_at_gate, wait_for_notes
from .waiting import eventually

AT_ONCE = RetryPolicy(max_attempts=5, initial_interval=timedelta(0))
ONCE = RetryPolicy(max_attempts=1)
SHORT = timedelta(seconds=0.25)
HOUR = timedelta(hours=1)


@activity(name="timeouts.add_one")
def add_one(number: int) -> int:
    return number + 1


@workflow(name="timeouts.round_trip")
async def round_trip() -> int:
    """What runs through the same pool afterwards shows that nothing of before is still on its way."""
    return await add_one(1)


@activity(name="timeouts.note_attempt", retry=AT_ONCE)
def note_attempt(key: str) -> int:
    note(key, "ran")
    return activity.info().attempt


# Waiting for a worker


@workflow(name="timeouts.wait_in_vain")
async def wait_in_vain(limit: str) -> str:
    key = workflow.info().instance_id
    call = note_attempt.using(queue="served by nobody")
    call = (
        call.using(schedule_to_start_timeout=SHORT) if limit == "start" else call.using(schedule_to_close_timeout=SHORT)
    )
    try:
        await call(key)
    except ActivityTimeout as error:
        return f"{type(error).__name__}: {error}"
    return "ran"


@pytest.mark.parametrize(("limit", "error"), [("start", "ScheduleToStartTimeout"), ("close", "ScheduleToCloseTimeout")])
def test_an_activity_that_no_worker_takes_in_time_ends_and_is_not_tried_again(
    worker: Worker, limit: str, error: str
) -> None:
    handle = wait_in_vain.start(limit)
    result = handle.result(timeout=10)
    assert result.startswith(f"{error}: timeouts.note_attempt, attempt 1")
    assert f"schedule_to_{limit}_timeout of 0.25 s" in result
    assert notes(handle.instance_id) == []
    assert not ActivityTask.objects.exists()


@activity(name="timeouts.hold_thread")
def hold_thread(key: str) -> None:
    note(key, "holds the thread")
    wait_at_gate(key)


@workflow(name="timeouts.hold")
async def hold() -> None:
    await hold_thread(workflow.info().instance_id)


@workflow(name="timeouts.run_unless_late")
async def run_unless_late(seconds: float) -> str:
    try:
        limited = note_attempt.using(schedule_to_start_timeout=timedelta(seconds=seconds))
        await limited(workflow.info().instance_id)
    except ScheduleToStartTimeout as error:
        return str(error)
    return "ran"


@workflow(name="timeouts.warm_up")
async def warm_up() -> None:
    """A worker leases ahead what it expects to run within a tenth of a second; after these it expects to be quick."""
    for _ in range(50):
        await add_one(1)


@pytest.fixture
def backlog(consistent_tables: None, cache_size: int) -> Iterator[Callable[[float], WorkflowHandle[str]]]:
    """Start an activity with a time to start on a worker that leases it and has no thread for it."""
    with running_worker(threads=1, sticky_cache_size=cache_size):
        warm_up.start().result(timeout=10)
        holding = hold.start()
        wait_for_notes(holding.instance_id)

        def start(seconds: float) -> WorkflowHandle[str]:
            handle = run_unless_late.start(seconds)
            eventually(lambda: ActivityTask.objects.filter(name="timeouts.note_attempt", attempt=1).exists())
            return handle

        yield start
        open_gate(holding.instance_id)
        holding.result(timeout=10)
        assert round_trip.start().result(timeout=10) == 2


def test_an_attempt_that_gets_no_thread_in_time_never_starts(backlog: Callable[[float], WorkflowHandle[str]]) -> None:
    """Half a second: less than the second after which an attempt that waits for a thread is given back."""
    handle = backlog(0.5)
    assert "attempt 1, waited for a worker longer" in handle.result(timeout=10)
    assert notes(handle.instance_id) == []


def test_an_attempt_that_is_given_back_has_waited_since_it_was_scheduled(
    backlog: Callable[[float], WorkflowHandle[str]],
) -> None:
    handle = backlog(3600)
    task = eventually(lambda: ActivityTask.objects.filter(name="timeouts.note_attempt", owner_id=None).first())
    assert task.available_at == task.scheduled_at
    assert task.expires_at == task.scheduled_at + HOUR
    handle.terminate()


def test_an_attempt_that_is_claimed_too_late_never_starts(consistent_tables: None, cache_size: int) -> None:
    """Between two looks for what has timed out a worker may take what is over its time already."""
    with running_worker(activities=False, sticky_cache_size=cache_size):
        handle = run_unless_late.start(3600)
        eventually(lambda: ActivityTask.objects.exists())
    hour_ago = Database().now() - HOUR
    ActivityTask.objects.update(available_at=hour_ago, expires_at=None)
    with running_worker(sticky_cache_size=cache_size):
        assert "attempt 1, waited for a worker longer" in handle.result(timeout=10)
    assert notes(handle.instance_id) == []


@activity(name="timeouts.nap")
def nap() -> str:
    time.sleep(0.8)
    return "slept"


@workflow(name="timeouts.start_in_time")
async def start_in_time() -> str:
    return await nap.using(schedule_to_start_timeout=timedelta(seconds=0.5))()


def test_an_attempt_that_began_in_time_may_run_for_longer(worker: Worker) -> None:
    round_trip.start().result(timeout=10)
    assert start_in_time.start().result(timeout=10) == "slept"


@activity(name="timeouts.fail_once", retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(seconds=1.2)))
def fail_once() -> int:
    if activity.info().attempt == 1:
        raise LookupError("not yet")
    return activity.info().attempt


@workflow(name="timeouts.pause_longer")
async def pause_longer() -> int:
    return await fail_once.using(schedule_to_start_timeout=timedelta(seconds=1))()


def test_the_pause_before_an_attempt_is_not_counted_as_waiting_for_a_worker(worker: Worker) -> None:
    assert pause_longer.start().result(timeout=10) == 2


# Running for too long


@activity(name="timeouts.hang", retry=AT_ONCE)
def hang(instance_id: str) -> str:
    attempt = activity.info().attempt
    if attempt == 1:
        activity.heartbeat()
        wait_at_gate(instance_id)
        note(instance_id, f"late, cancelled: {activity.is_cancelled()}")
    return f"attempt {attempt}"


@activity(name="timeouts.async_hang", retry=AT_ONCE)
async def async_hang(instance_id: str) -> str:
    attempt = activity.info().attempt
    if attempt == 1:
        activity.heartbeat()
        try:
            await await_gate(instance_id)
        except asyncio.CancelledError:
            note(instance_id, f"late, cancelled: {activity.is_cancelled()}")
            raise
    return f"attempt {attempt}"


def _hanging(is_async: bool, limit: str) -> Any:
    call: Any = async_hang if is_async else hang
    return (
        call.using(start_to_close_timeout=SHORT) if limit == "start_to_close" else call.using(heartbeat_timeout=SHORT)
    )


@workflow(name="timeouts.outlast")
async def outlast(is_async: bool, limit: str) -> str:
    result: str = await _hanging(is_async, limit)(workflow.info().instance_id)
    await workflow.wait_condition(lambda: False)
    return result


either = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@either
@pytest.mark.parametrize("limit", ["start_to_close", "heartbeat"])
def test_a_timed_out_attempt_is_tried_again_and_its_late_result_ignored(
    worker: Worker, is_async: bool, limit: str
) -> None:
    handle = outlast.start(is_async, limit)
    eventually(lambda: "ActivityCompleted" in [event.type for event in handle.history()])
    open_gate(handle.instance_id)
    assert wait_for_notes(handle.instance_id) == ["late, cancelled: True"]
    assert round_trip.start().result(timeout=10) == 2
    outcomes = [event.data["result"] for event in handle.history() if event.type == "ActivityCompleted"]
    assert outcomes == ["attempt 2"]
    handle.terminate()


@workflow(name="timeouts.time_out")
async def time_out(is_async: bool, limit: str) -> str:
    try:
        await _hanging(is_async, limit).using(retry=ONCE)(workflow.info().instance_id)
    except TimeoutError as error:
        assert isinstance(error, ActivityTimeout)
        return f"{type(error).__name__}: {error}"
    return "in time"


@either
@pytest.mark.parametrize(("limit", "error"), [("start_to_close", StartToCloseTimeout), ("heartbeat", HeartbeatTimeout)])
def test_the_last_attempt_over_its_timeout_raises_in_the_workflow(
    worker: Worker, is_async: bool, limit: str, error: type[ActivityTimeout]
) -> None:
    handle = time_out.start(is_async, limit)
    result = handle.result(timeout=10)
    open_gate(handle.instance_id)
    assert result.startswith(f"{error.__name__}: timeouts.") and f"{limit}_timeout of 0.25 s" in result


@activity(name="timeouts.beat", retry=ONCE, heartbeat_timeout=timedelta(seconds=1))
def beat() -> int:
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        activity.heartbeat()
        time.sleep(0.005)
    return 1


@workflow(name="timeouts.stay_alive")
async def stay_alive() -> int:
    return await beat()


def test_an_attempt_that_sends_heartbeats_may_run_for_longer_than_their_timeout(worker: Worker) -> None:
    assert stay_alive.start().result(timeout=10) == 1


# All attempts together


@workflow(name="timeouts.hang_past_deadline")
async def hang_past_deadline() -> str:
    try:
        await hang.using(schedule_to_close_timeout=SHORT)(workflow.info().instance_id)
    except ScheduleToCloseTimeout as error:
        return str(error)
    return "in time"


def test_the_schedule_to_close_timeout_ends_a_running_attempt_for_good(worker: Worker) -> None:
    handle = hang_past_deadline.start()
    result = handle.result(timeout=10)
    open_gate(handle.instance_id)
    assert result == "timeouts.hang, attempt 1, did not end within its schedule_to_close_timeout of 0.25 s"


@workflow(name="timeouts.no_time_left")
async def no_time_left(key: str) -> str:
    hourly = RetryPolicy(initial_interval=HOUR, max_interval=HOUR)
    try:
        await fail_always.using(retry=hourly, schedule_to_close_timeout=HOUR / 2)(key)
    except LookupError as error:
        return str(error)
    return "never"


@activity(name="timeouts.fail_always")
def fail_always(key: str) -> None:
    note(key, "tried")
    raise LookupError(f"attempt {activity.info().attempt}")


def test_no_attempt_is_planned_behind_the_schedule_to_close_timeout(worker: Worker, cache_size: int) -> None:
    key = f"no time left {cache_size}"
    assert no_time_left.start(key).result(timeout=10) == "attempt 1"
    assert notes(key) == ["tried"]


# Threads


def test_threads_held_by_timed_out_attempts_are_not_given_more_work(consistent_tables: None, cache_size: int) -> None:
    with running_worker(threads=1, sticky_cache_size=cache_size):
        stuck = time_out.start(False, "start_to_close")
        assert stuck.result(timeout=10).startswith("StartToCloseTimeout")
        handle = round_trip.start()
        task = eventually(lambda: ActivityTask.objects.filter(name="timeouts.add_one").first())
        assert task.owner_id is None  # left for a worker with a free thread
        open_gate(stuck.instance_id)
        assert handle.result(timeout=10) == 2

"""Attempts of activities: retries, timeouts, cancellation, and what a lost lease does to them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from django_workflows import (
    InstanceStatus,
    RetryPolicy,
    WorkflowFailed,
    WorkflowHandle,
    activity,
    workflow,
)
from django_workflows.failures import Failure
from django_workflows.models import ActivityTask
from django_workflows.models import Worker as WorkerRow
from django_workflows.store import workers
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .gates import note, notes, open_gate, wait_at_gate, wait_for_cancel, wait_for_notes
from .waiting import eventually

HOUR = timedelta(hours=1)
AT_ONCE = RetryPolicy(max_attempts=5, initial_interval=timedelta(0))
ONCE = RetryPolicy(max_attempts=1)


class Flaky(Exception):
    pass


class VeryFlaky(Flaky):
    pass


@activity(name="attempts.fail_until", retry=AT_ONCE)
def fail_until(good_attempt: int) -> int:
    attempt = activity.info().attempt
    note(activity.info().instance_id, str(attempt))
    if attempt < good_attempt:
        raise VeryFlaky(f"attempt {attempt}")
    return attempt


@workflow(name="attempts.retry")
async def retry_until(good_attempt: int) -> int:
    return await fail_until(good_attempt)


def test_attempts_count_from_one_and_take_no_step_and_no_history(worker: Worker) -> None:
    assert worker._loop is not None
    steps = worker._loop.statistics.steps
    handle = retry_until.start(4)
    assert handle.result(timeout=20) == 4
    assert worker._loop.statistics.steps == steps + 2, "one that schedules, one that takes the result"
    assert notes(handle.instance_id) == ["1", "2", "3", "4"]
    assert [event.type for event in handle.history()] == [
        "InstanceStarted",
        "ActivityScheduled",
        "ActivityCompleted",
        "InstanceCompleted",
    ]
    assert [event.sequence for event in handle.history()] == [1, 2, 3, 4]


def test_the_last_permitted_attempt_decides(worker: Worker) -> None:
    handle = retry_until.start(99)
    with pytest.raises(WorkflowFailed, match="attempt 5") as caught:
        handle.result(timeout=20)
    assert isinstance(caught.value.__cause__, VeryFlaky)
    assert notes(handle.instance_id) == ["1", "2", "3", "4", "5"]


BACKING_OFF = RetryPolicy(max_attempts=4, initial_interval=HOUR, backoff=3, max_interval=5 * HOUR)
CLOCK_ERROR = timedelta(seconds=0.2)  # of a worker that carries the database's time forward, on a busy machine


@activity(name="attempts.fail_at_a_time", retry=BACKING_OFF)
def fail_at_a_time(asked: float | None) -> int:
    attempt = activity.info().attempt
    error = Flaky(f"attempt {attempt}")
    error.next_retry_delay = asked  # type: ignore[attr-defined]
    note(activity.info().instance_id, Database().now().isoformat())
    if attempt < 4:
        raise error
    return attempt


@workflow(name="attempts.back_off")
async def back_off(asked: float | None) -> int:
    return await fail_at_a_time(asked)


def _failed_task(attempt: int) -> ActivityTask | None:
    return ActivityTask.objects.filter(attempt=attempt, owner_id=None).first()


@pytest.mark.parametrize(
    ("asked", "pauses"), [(None, [HOUR, 3 * HOUR, 5 * HOUR]), (90.5, [timedelta(seconds=90.5)] * 3)],
    ids=["policy", "next_retry_delay"],
)  # fmt: skip
def test_pauses_are_exact_by_the_databases_clock(worker: Worker, asked: float | None, pauses: list[timedelta]) -> None:
    """The clock is moved by hand: each failed attempt waits in its row, and is made due."""
    handle = back_off.start(asked)
    for attempt, pause in enumerate(pauses, 1):
        failed_at = datetime.fromisoformat(wait_for_notes(handle.instance_id, attempt)[attempt - 1])
        task = eventually(partial(_failed_task, attempt))
        now = Database().now()
        assert task.available_at is not None and task.last_failure is not None
        assert failed_at - CLOCK_ERROR <= task.available_at - pause <= now + CLOCK_ERROR
        assert Failure.decode(task.last_failure).message == f"attempt {attempt}"
        ActivityTask.objects.filter(pk=task.pk).update(available_at=now)
        worker.wake()
    assert handle.result(timeout=10) == 4


class Futile(Exception):
    non_retryable = True


@activity(name="attempts.give_up", retry=AT_ONCE)
def give_up(how: str) -> None:
    note(activity.info().instance_id, "tried")
    if how == "own error":
        raise Futile("not again")
    if how == "late":
        error = Flaky("not again")
        error.next_retry_delay = timedelta(hours=2)  # type: ignore[attr-defined]
        raise error
    raise asyncio.CancelledError("not again")


@workflow(name="attempts.give_up_once")
async def give_up_once(how: str) -> None:
    await give_up.using(schedule_to_close_timeout=HOUR)(how)


@pytest.mark.parametrize("how", ["own error", "late", "cancelled"])
def test_an_error_may_end_the_activity_at_once(worker: Worker, how: str) -> None:
    """By its own word, by a pause beyond the time for all attempts, or because a cancellation is never tried again."""
    handle = give_up_once.start(how)
    with pytest.raises(WorkflowFailed, match="not again"):
        handle.result(timeout=10)
    assert notes(handle.instance_id) == ["tried"]


@workflow(name="attempts.not_again")
async def not_again(kind: str) -> None:
    refused: dict[str, type[BaseException] | str] = {
        "class": VeryFlaky,
        "base class": Flaky,
        "name": "VeryFlaky",
        "name of base class": "Flaky",
        "dotted name": f"{__name__}.VeryFlaky",
    }
    policy = RetryPolicy(max_attempts=5, initial_interval=timedelta(0), non_retryable=(refused[kind],))
    await fail_until.using(retry=policy)(99)


@pytest.mark.parametrize("kind", ["class", "base class", "name", "name of base class", "dotted name"])
def test_a_non_retryable_error_is_not_tried_again(worker: Worker, kind: str) -> None:
    handle = not_again.start(kind)
    with pytest.raises(WorkflowFailed, match="attempt 1"):
        handle.result(timeout=10)
    assert notes(handle.instance_id) == ["1"]


@workflow(name="attempts.no_time_left")
async def no_time_left() -> None:
    hourly = RetryPolicy(initial_interval=HOUR, max_interval=HOUR)
    await fail_until.using(retry=hourly, schedule_to_close_timeout=HOUR / 2)(99)


def test_no_retry_after_the_schedule_to_close_timeout(worker: Worker) -> None:
    handle = no_time_left.start()
    with pytest.raises(WorkflowFailed, match="attempt 1"):
        handle.result(timeout=10)
    assert notes(handle.instance_id) == ["1"]


# Cancellation


@activity(name="attempts.notice_cancel")
def notice_cancel(key: str) -> str:
    note(key, "started")
    wait_for_cancel()
    note(key, "saw is_cancelled")
    return "too late"


@activity(name="attempts.async_notice_cancel")
async def async_notice_cancel(key: str) -> str:
    note(key, "started")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(key, "got CancelledError")
        raise
    return "never"


@workflow(name="attempts.cancel")
async def cancel_activity(is_async: bool) -> str:
    call: Any = async_notice_cancel if is_async else notice_cancel
    task = asyncio.create_task(call(workflow.info().instance_id))
    try:
        await task
    except asyncio.CancelledError:
        return "went on at once"
    return "never"


SAW = {False: "saw is_cancelled", True: "got CancelledError"}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_cancelled_activity_learns_of_it(worker: Worker, is_async: bool) -> None:
    handle = cancel_activity.start(is_async)
    wait_for_notes(handle.instance_id)
    handle.cancel()
    assert handle.result(timeout=10) == "went on at once"
    assert wait_for_notes(handle.instance_id, 2)[1] == SAW[is_async]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_cancelled_activity_on_another_worker_learns_of_it(
    consistent_tables: None, cache_size: int, is_async: bool
) -> None:
    with running_worker(activities=False, sticky_cache_size=cache_size), running_worker(workflows=False):
        handle = cancel_activity.start(is_async)
        wait_for_notes(handle.instance_id)
        handle.cancel()
        assert handle.result(timeout=10) == "went on at once"
        assert wait_for_notes(handle.instance_id, 2)[1] == SAW[is_async]


def test_a_running_activity_of_a_terminated_instance_learns_of_it(worker: Worker) -> None:
    handle = cancel_activity.start(False)
    wait_for_notes(handle.instance_id)
    handle.terminate()
    assert wait_for_notes(handle.instance_id, 2)[1] == SAW[False]
    assert handle.status == InstanceStatus.TERMINATED


@activity(name="attempts.pass_gate")
def pass_gate(key: str) -> str:
    note(key, "started")
    wait_at_gate(key)
    return "done"


@workflow(name="attempts.shielded")
async def shielded() -> str:
    inner = asyncio.create_task(pass_gate(workflow.info().instance_id))
    try:
        await asyncio.shield(inner)
    except asyncio.CancelledError:
        return f"waited: {await inner}"
    return "not cancelled"


def test_a_shielded_activity_is_waited_for(worker: Worker) -> None:
    handle = shielded.start()
    wait_for_notes(handle.instance_id)
    handle.cancel()
    eventually(lambda: "CancelRequested" in [event.type for event in handle.history()])
    open_gate(handle.instance_id)
    assert handle.result(timeout=10) == "waited: done"


# Leases


@activity(name="attempts.outlive_lease", retry=AT_ONCE)
def outlive_lease(key: str) -> str:
    attempt = activity.info().attempt
    note(key, f"attempt {attempt} started")
    if attempt == 1:
        wait_at_gate(key)
        note(key, "attempt 1 ended")
    return f"attempt {attempt}"


@workflow(name="attempts.lose_lease")
async def lose_lease(key: str) -> str:
    result = await outlive_lease(key)
    await workflow.wait_condition(lambda: False)
    return result


def _results(handle: WorkflowHandle[Any]) -> list[str]:
    return [event.data["result"] for event in handle.history() if event.type == "ActivityCompleted"]


@pytest.mark.parametrize("first_ends", ["early", "late"])
def test_a_result_of_a_lost_lease_is_discarded(consistent_tables: None, cache_size: int, first_ends: str) -> None:
    """The worker of attempt 1 is declared dead while it runs; it starts over, and so does the activity."""
    with running_worker(sticky_cache_size=cache_size) as first:
        handle = lose_lease.start(f"lost-{cache_size}-{first_ends}")
        key = f"lost-{cache_size}-{first_ends}"
        wait_for_notes(key)
        dead = first.id
        workers.retire(Database(), dead)
        workers.hand_back(Database())
        eventually(lambda: first.id != dead)
        if first_ends == "early":
            open_gate(key)
        eventually(lambda: _results(handle))
        open_gate(key)
        assert sorted(wait_for_notes(key, 3)) == ["attempt 1 ended", "attempt 1 started", "attempt 2 started"]
        retry_until.start(1).result(timeout=10)
        assert _results(handle) == ["attempt 2"]
        handle.terminate()


@activity(name="attempts.outlast_lease", retry=AT_ONCE)
def outlast_lease(key: str) -> int:
    """Return once its worker has renewed its lease for the length of two leases."""
    note(key, "started")
    worker_id = ActivityTask.objects.get(name="attempts.outlast_lease").owner_id
    assert worker_id is not None
    eventually(lambda: WorkerRow.objects.filter(id=worker_id, beat__gte=6).exists(), timeout=30)
    return activity.info().attempt


@workflow(name="attempts.run_slowly")
async def run_slowly(key: str) -> int:
    return await outlast_lease(key)


def test_a_slow_activity_on_a_healthy_worker_runs_once(consistent_tables: None, cache_size: int) -> None:
    lease = timedelta(seconds=1)
    key = f"slow-{cache_size}"
    with (
        running_worker(sticky_cache_size=cache_size, lease=lease),
        running_worker(sticky_cache_size=cache_size, lease=lease),
    ):
        assert run_slowly.start(key).result(timeout=30) == 1
    assert notes(key) == ["started"]

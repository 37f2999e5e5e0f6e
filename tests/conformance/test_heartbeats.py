"""Heartbeats: how far an attempt has come reaches the next one, whatever ended it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_workflows import NotInActivityError, PayloadError, RetryPolicy, WorkflowFailed, activity, workflow
from django_workflows.models import ActivityTask
from django_workflows.store import workers
from django_workflows.store.database import Database
from django_workflows.store.work import Heartbeat, TurnBatch
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.reliability.processes import worker_processes
from tests.testapp.models import Effect

from .gates import await_gate, note, open_gate, wait_at_gate, wait_for_cancel, wait_for_notes
from .store_support import commit, register, scheduled_task
from .waiting import eventually
from .workflows import resume

AT_ONCE = RetryPolicy(max_attempts=5, initial_interval=timedelta(0))


@activity(name="heartbeats.stop_short", retry=AT_ONCE)
def stop_short(key: str, how: str) -> Any:
    """Report progress and end the first attempt in one of several ways; return what the second one knows."""
    if activity.info().attempt > 1:
        return [activity.info().attempt, activity.info().heartbeat_details]
    assert activity.info().heartbeat_details == ()
    for row in range(0 if how == "failure" else 19_990, 20_000):
        activity.heartbeat(row, {"file": "a.csv"})
    activity.heartbeat()
    _end(how)
    wait_at_gate(key)
    return "too late"


@activity(name="heartbeats.async_stop_short", retry=AT_ONCE)
async def async_stop_short(key: str, how: str) -> Any:
    if activity.info().attempt > 1:
        return [activity.info().attempt, activity.info().heartbeat_details]
    activity.heartbeat(0)
    activity.heartbeat(19_999, {"file": "a.csv"})
    _end(how)
    await await_gate(key)
    return "too late"


def _end(how: str) -> None:
    note(activity.info().instance_id, "reported")
    if how == "failure":
        raise LookupError("half way")


@workflow(name="heartbeats.go_on")
async def go_on(is_async: bool, how: str) -> Any:
    call: Any = async_stop_short if is_async else stop_short
    if how == "timeout":
        call = call.using(start_to_close_timeout=timedelta(seconds=0.5))
    elif how == "missing heartbeats":
        call = call.using(heartbeat_timeout=timedelta(seconds=0.5))
    return await call(workflow.info().instance_id, how)


FOUND = [2, [19_999, {"file": "a.csv"}]]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("how", ["failure", "timeout", "missing heartbeats"])
def test_the_last_details_reach_the_next_attempt(worker: Worker, is_async: bool, how: str) -> None:
    handle = go_on.start(is_async, how)
    assert handle.result(timeout=20) == FOUND
    open_gate(handle.instance_id)


def test_the_last_details_outlive_the_worker(consistent_tables: None, cache_size: int) -> None:
    """Written about once a second: here the worker is declared dead once they are."""
    with running_worker(sticky_cache_size=cache_size) as running:
        handle = go_on.start(False, "lost worker")
        wait_for_notes(handle.instance_id)
        eventually(lambda: ActivityTask.objects.filter(heartbeat='[19999,{"file":"a.csv"}]').exists())
        workers.retire(Database(), running.id)
        workers.hand_back(Database())
        assert handle.result(timeout=20) == FOUND
        open_gate(handle.instance_id)


def test_a_killed_process_leaves_details_of_about_a_second_ago(consistent_tables: None) -> None:
    with worker_processes(1, lease=1.5) as fleet:
        handle = resume.start("killed")
        eventually(lambda: Effect.objects.filter(key="killed", value__gte=20).exists(), timeout=30)
        reached = Effect.objects.get(key="killed").value
        eventually(lambda: ActivityTask.objects.filter(heartbeat__isnull=False).exists())
        eventually(lambda: Effect.objects.get(key="killed").value >= reached + 150, timeout=30)
        fleet.processes[0].kill()
        fleet.processes[0].wait()
        died_at = Effect.objects.get(key="killed").value
        with running_worker(lease=timedelta(seconds=1.5)):
            # 10 ms a step, and whatever a busy machine adds.
            assert died_at - 150 <= handle.result(timeout=20) <= died_at + 1


@activity(name="heartbeats.report_nothing", retry=AT_ONCE)
def report_nothing() -> Any:
    attempt = activity.info().attempt
    if attempt == 1:
        activity.heartbeat("from the first")
    if attempt == 3:
        activity.heartbeat()
    if attempt < 4:
        raise LookupError
    return activity.info().heartbeat_details


@workflow(name="heartbeats.skip_reports")
async def skip_reports() -> Any:
    return await report_nothing()


def test_details_are_kept_over_attempts_that_report_none(worker: Worker) -> None:
    assert skip_reports.start().result(timeout=10) == ["from the first"]


@override_settings(DJANGO_WORKFLOWS={"CODEC": "tests.conformance.test_converters.Sealed"})
def test_details_go_through_the_projects_codec(consistent_tables: None, cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        assert go_on.start(True, "failure").result(timeout=10) == FOUND
        handle = go_on.start(False, "wait")
        [stored] = eventually(lambda: ActivityTask.objects.exclude(heartbeat=None).values_list("heartbeat", flat=True))
        assert "a.csv" not in stored
        open_gate(handle.instance_id)
        assert handle.result(timeout=10) == "too late"


# What it refuses, and how it tells of a cancellation


@activity(name="heartbeats.report_object", retry=RetryPolicy(max_attempts=1))
def report_object() -> str:
    try:
        activity.heartbeat(1, object())
    except PayloadError as error:
        return str(error)
    return "accepted"


@workflow(name="heartbeats.refuse")
async def refuse() -> str:
    return await report_object()


def test_details_that_cannot_be_stored_are_refused_at_the_call(worker: Worker) -> None:
    assert "Cannot store the details of a heartbeat" in refuse.start().result(timeout=10)


def test_outside_an_activity_it_is_an_error() -> None:
    with pytest.raises(NotInActivityError, match=r"activity\.heartbeat\(\)"):
        activity.heartbeat(1)


@activity(name="heartbeats.beat_for_ever")
def beat_for_ever(key: str) -> None:
    note(key, "started")
    try:
        wait_for_cancel()
        activity.heartbeat()
    except asyncio.CancelledError as error:
        activity.heartbeat("cleaning up")
        note(key, str(error))
        raise


@activity(name="heartbeats.async_beat_for_ever")
async def async_beat_for_ever(key: str) -> None:
    note(key, "started")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        activity.heartbeat("cleaning up")
        note(key, "attempt 1 was cancelled at its await")
        raise


@workflow(name="heartbeats.run_for_ever")
async def run_for_ever(is_async: bool) -> None:
    await (async_beat_for_ever if is_async else beat_for_ever)(workflow.info().instance_id)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_in_a_cancelled_attempt_it_raises_once_where_no_await_does(worker: Worker, is_async: bool) -> None:
    handle = run_for_ever.start(is_async)
    wait_for_notes(handle.instance_id)
    handle.cancel()
    assert "attempt 1" in wait_for_notes(handle.instance_id, 2)[1]


# The table


def test_heartbeats_are_written_for_the_lease_holder_only_and_the_last_one_counts() -> None:
    me, other = register(), register()
    key = scheduled_task(me)
    [task] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks
    beats = [Heartbeat(task, f"[{number}]", datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)) for number in range(3)]

    commit(other, TurnBatch(heartbeats=beats))
    assert ActivityTask.objects.get().heartbeat is None
    commit(me, TurnBatch(heartbeats=beats))
    row = ActivityTask.objects.get()
    assert (row.heartbeat, row.heartbeat_at) == ("[2]", beats[2].time)
    commit(me, TurnBatch(heartbeats=[Heartbeat(task, None, datetime(2026, 1, 2, tzinfo=UTC))]))
    row = ActivityTask.objects.get()
    assert (row.heartbeat, row.heartbeat_at) == ("[2]", datetime(2026, 1, 2, tzinfo=UTC))
    ActivityTask.objects.update(attempt=2)
    commit(me, TurnBatch(heartbeats=beats))
    assert ActivityTask.objects.get().heartbeat_at == datetime(2026, 1, 2, tzinfo=UTC)


def test_details_that_cannot_be_read_fail_their_activity_alone(worker: Worker) -> None:
    handle = skip_reports.using(queue="later").start()
    with running_worker(queues=["later"], activities=False):
        eventually(lambda: ActivityTask.objects.filter(name="heartbeats.report_nothing").exists())
    ActivityTask.objects.update(heartbeat="no json", queue="default")
    problem = r"Cannot decode the heartbeat details of heartbeats\.report_nothing"
    with running_worker(queues=["later"], activities=False), pytest.raises(WorkflowFailed, match=problem):
        handle.result(timeout=10)

"""Instances and their handles: start, result, unknown and closed ones, what a worker does not know."""

from __future__ import annotations

import uuid

import pytest
from asgiref.sync import async_to_sync

from django_workflows import (
    InstanceNotFound,
    InstanceNotRunning,
    InstanceStatus,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTerminated,
    get_handle,
    registry,
)
from django_workflows.models import ActivityTask, InboxEvent
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.workflows import greet

from .samples import echo, fail, go, length, measure, nothing_is_stored, wait_for_go
from .waiting import eventually

# Start and result


def test_started_instance_is_running_with_a_waiting_event_until_a_worker_runs_it(cache_size: int) -> None:
    handle = greet.start("hello")

    assert handle.status is InstanceStatus.RUNNING
    assert [row.type for row in InboxEvent.objects.all()] == ["InstanceStarted"]
    assert handle.history() == []
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "hello world"
    assert handle.status is InstanceStatus.COMPLETED
    assert not InboxEvent.objects.exists()
    assert [event.type for event in handle.history()] == [
        "InstanceStarted",
        "ActivityScheduled",
        "ActivityCompleted",
        "InstanceCompleted",
    ]


def test_failure_of_the_workflow_is_raised_by_result_with_its_cause(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed, match="no such order") as caught:
        fail.start().result(timeout=10)
    assert isinstance(caught.value.__cause__, LookupError)


def test_waiting_for_the_end_returns_the_row_however_the_instance_ended(worker: Worker) -> None:
    assert echo.start("x").wait_closed(timeout=10).status == InstanceStatus.COMPLETED
    assert fail.start().wait_closed(timeout=10).status == InstanceStatus.FAILED
    assert async_to_sync(fail.start().await_closed)(timeout=10).status == InstanceStatus.FAILED
    with pytest.raises(TimeoutError):
        wait_for_go.start().wait_closed(timeout=0)


def test_handle_from_the_id_alone_decodes_the_result(worker: Worker) -> None:
    greet.using(instance_id="by-id").start("hello")

    assert get_handle("by-id").result(timeout=10) == "hello world"


def test_result_times_out_and_leaves_the_instance_alone(worker: Worker) -> None:
    handle = wait_for_go.start()

    with pytest.raises(TimeoutError, match="still running"):
        handle.result(timeout=0.05)
    handle.signal(go, "late")
    assert handle.result(timeout=10) == "late"


def test_async_twins_do_what_the_sync_methods_do(worker: Worker) -> None:
    async def use_them() -> None:
        handle = await wait_for_go.using(instance_id="async").astart()
        assert await handle.astatus() is InstanceStatus.RUNNING
        with pytest.raises(TimeoutError):
            await handle.aresult(timeout=0.02)
        await handle.asignal(go, "yes")
        assert await handle.aresult(timeout=10) == "yes"
        assert (await handle.ahistory())[-1].type == "InstanceCompleted"
        assert (await handle.adescribe()).instance_id == "async"
        await handle.aremove()
        with pytest.raises(InstanceNotFound):
            await handle.astatus()

        cancelled = await wait_for_go.astart()
        await cancelled.acancel("not needed")
        with pytest.raises(WorkflowCancelled):
            await cancelled.aresult(timeout=10)
        terminated = await wait_for_go.astart()
        await terminated.aterminate("enough")
        with pytest.raises(WorkflowTerminated, match="enough"):
            await terminated.aresult(timeout=10)

    async_to_sync(use_them)()


def test_many_async_waiters_hold_no_thread_each(worker: Worker) -> None:
    """Fifty waits at once, more than the default thread pool has threads."""
    import asyncio

    async def wait_for_all() -> None:
        handles = [await wait_for_go.astart() for _ in range(50)]
        waits = [asyncio.create_task(handle.aresult(timeout=30)) for handle in handles]
        for number, handle in enumerate(handles):
            await handle.asignal(go, str(number))
        assert await asyncio.gather(*waits) == [str(number) for number in range(50)]

    async_to_sync(wait_for_all)()


# Unknown and closed instances


def test_unknown_id_is_not_found_by_anything_a_handle_can_do() -> None:
    handle = get_handle("nobody")

    for use in (
        lambda: handle.signal(go, "x"),
        handle.cancel,
        handle.terminate,
        handle.remove,
        handle.result,
        handle.history,
        handle.describe,
        lambda: handle.status,
    ):
        with pytest.raises(InstanceNotFound, match="'nobody'"):
            use()
    assert nothing_is_stored()


def test_unknown_execution_of_a_known_id_is_not_found() -> None:
    echo.using(instance_id="known").start(1)

    with pytest.raises(InstanceNotFound, match=r"'known'.*execution_id"):
        get_handle("known", uuid.uuid4().hex).describe()


def test_closed_instance_takes_no_messages(worker: Worker) -> None:
    handle = echo.start(1)
    handle.result(timeout=10)
    before = handle.history()

    for send in (lambda: handle.signal(go, "x"), handle.cancel, handle.terminate):
        with pytest.raises(InstanceNotRunning, match="completed"):
            send()
    assert not InboxEvent.objects.exists()
    assert handle.history() == before


def test_terminate_closes_at_once_and_keeps_the_reason(worker: Worker) -> None:
    handle = wait_for_go.start()
    eventually(handle.history)

    handle.terminate("customer left")

    assert handle.status is InstanceStatus.TERMINATED
    assert handle.history()[-1].data["reason"] == "customer left"
    with pytest.raises(WorkflowTerminated, match="customer left"):
        handle.result()


def test_terminate_of_an_instance_that_no_worker_saw_leaves_nothing_to_run(cache_size: int) -> None:
    handle = wait_for_go.start()
    handle.terminate()

    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: not InboxEvent.objects.exists())
    assert [event.type for event in handle.history()] == ["InstanceTerminated"]


# What a worker does not know


def test_unknown_workflow_is_blocked_with_the_reason_and_runs_on_where_it_is_known(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = wait_for_go.start()
    handle.signal(go, "known")
    with monkeypatch.context() as patch:
        patch.delitem(registry.workflows._definitions, wait_for_go.name)
        with running_worker(sticky_cache_size=cache_size):
            eventually(lambda: handle.status is InstanceStatus.BLOCKED)
            # Another instance is not concerned.
            assert greet.start("hello").result(timeout=10) == "hello world"
            with pytest.raises(TimeoutError, match="blocked"):
                handle.result(timeout=0)
        failure = handle.describe().failure
        assert failure is not None and "instances.wait_for_go" in failure and "UnknownWorkflowError" in failure
        assert handle.history() == []

    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "known"
    assert handle.describe().failure is None


def test_blocked_instance_runs_on_by_itself_on_the_worker_that_blocked_it(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delitem(registry.workflows._definitions, echo.name)
        with running_worker(sticky_cache_size=cache_size):
            handle = echo.start("x")
            eventually(lambda: handle.status is InstanceStatus.BLOCKED)
            patch.undo()
            assert handle.result(timeout=10) == "x"


def test_blocked_instance_can_be_terminated_and_leaves_no_row(monkeypatch: pytest.MonkeyPatch, cache_size: int) -> None:
    monkeypatch.delitem(registry.workflows._definitions, wait_for_go.name)
    handle = wait_for_go.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: handle.status is InstanceStatus.BLOCKED)
        # Parked: out of the range of the workers' polls.
        eventually(lambda: not InboxEvent.objects.filter(queue__isnull=False).exists())
        handle.terminate("gone for good")
    assert handle.status is InstanceStatus.TERMINATED


def test_activity_that_nobody_knows_waits_for_a_worker_that_does(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = measure.start("four")
    with monkeypatch.context() as patch:
        patch.delitem(registry.activities._definitions, length.name)
        with running_worker(sticky_cache_size=cache_size):
            task = eventually(ActivityTask.objects.first)
            # It lets others pass.
            assert greet.start("hello").result(timeout=10) == "hello world"
        task.refresh_from_db()
        assert (task.name, task.attempt, task.owner_id) == (length.name, 0, None)
        assert task.available_at is not None
        assert handle.status is InstanceStatus.RUNNING

    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "four4"

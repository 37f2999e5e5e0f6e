"""Cancelling instances: where it is seen, what may still be done, and how the instance ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_workflows import (
    InstanceNotRunning,
    InstanceStatus,
    Signal,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowHandle,
    activity,
    workflow,
)
from django_workflows.models import ActivityTask, InboxEvent, Timer, WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .gates import note, notes, open_gate, wait_at_gate, wait_for_cancel, wait_for_notes
from .waiting import eventually

go_on: Signal[None] = Signal("cancellation.go_on")


def types(handle: WorkflowHandle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


def assert_cancelled(handle: WorkflowHandle[Any]) -> None:
    with pytest.raises(WorkflowCancelled, match=handle.instance_id):
        handle.result(timeout=10)
    assert handle.status == InstanceStatus.CANCELLED
    assert types(handle)[-1] == "InstanceCancelled"
    pk = handle.describe().pk
    assert not Timer.objects.filter(instance_id=pk).exists()
    assert not ActivityTask.objects.filter(instance_id=pk).exists()


@activity(name="cancellation.wait")
def wait() -> None:
    wait_for_cancel()


@activity(name="cancellation.clean_up")
def clean_up(key: str, text: str) -> str:
    note(key, text)
    return text


@workflow(name="cancellation.child")
async def child(key: str) -> None:
    try:
        await go_on.receive()
    except asyncio.CancelledError:
        await clean_up(key, "child cleaned up")
        raise


async def _wait_for(what: str, key: str) -> None:
    if what == "sleep":
        await asyncio.sleep(86400)
    elif what == "activity":
        await wait()
    elif what == "child":
        await child(key)
    elif what == "signal":
        await go_on.receive()
    elif what == "condition":
        await workflow.wait_condition(lambda: False)
    else:
        await asyncio.gather(asyncio.sleep(86400), wait(), go_on.receive())


WAITS = ["sleep", "activity", "child", "signal", "condition", "all of them"]
DECIDES = {"signal", "condition"}


@workflow(name="cancellation.wait_for")
async def wait_for(what: str) -> str:
    key = workflow.info().instance_id
    try:
        await _wait_for(what, key)
    except asyncio.CancelledError:
        await clean_up(key, "except")
        raise
    finally:
        await clean_up(key, "finally")
    return "never"


def has_begun_to_wait(handle: WorkflowHandle[Any], what: str) -> bool:
    return "InstanceStarted" in types(handle) and (what in DECIDES or len(types(handle)) > 1)


@pytest.mark.parametrize("what", WAITS)
def test_cancel_arrives_at_the_current_await_and_clean_up_runs(worker: Worker, what: str) -> None:
    handle = wait_for.start(what)
    eventually(lambda: has_begun_to_wait(handle, what))
    if what == "child":
        eventually(lambda: WorkflowInstance.objects.filter(name="cancellation.child").exists())
    handle.cancel("enough")
    assert_cancelled(handle)
    cleaned = [text for text in notes(handle.instance_id) if text != "child cleaned up"]
    assert cleaned == ["except", "finally"]
    requested = next(event for event in handle.history() if event.type == "CancelRequested")
    assert requested.data == {"reason": "enough"}


def test_a_cancelled_child_cleans_up_and_ends_cancelled(worker: Worker) -> None:
    handle = wait_for.start("child")
    row = eventually(WorkflowInstance.objects.filter(name="cancellation.child").first)
    handle.cancel()
    assert_cancelled(handle)
    assert "child cleaned up" in wait_for_notes(handle.instance_id, 3)
    eventually(lambda: WorkflowInstance.objects.get(pk=row.pk).status == InstanceStatus.CANCELLED)


@workflow(name="cancellation.swallow")
async def swallow() -> str:
    try:
        await asyncio.sleep(86400)
    except asyncio.CancelledError:
        return "completed all the same"
    return "never"


def test_swallowing_the_cancellation_completes(worker: Worker) -> None:
    handle = swallow.start()
    eventually(lambda: "TimerStarted" in types(handle))
    handle.cancel()
    assert handle.result(timeout=10) == "completed all the same"
    assert handle.status == InstanceStatus.COMPLETED
    assert not Timer.objects.exists()


@workflow(name="cancellation.fail_in_clean_up")
async def fail_in_clean_up() -> None:
    try:
        await asyncio.sleep(86400)
    except asyncio.CancelledError:
        raise ValueError("clean-up failed") from None


def test_an_error_in_the_clean_up_fails_the_instance(worker: Worker) -> None:
    handle = fail_in_clean_up.start()
    eventually(lambda: "TimerStarted" in types(handle))
    handle.cancel()
    with pytest.raises(WorkflowFailed, match="clean-up failed"):
        handle.result(timeout=10)


@workflow(name="cancellation.go_on_after_it")
async def go_on_after_it() -> list[str]:
    seen = []
    for _ in range(2):
        try:
            await go_on.receive()
            seen.append("signal")
        except asyncio.CancelledError:
            seen.append("cancelled")
    return seen


def test_the_cancellation_is_delivered_once(worker: Worker) -> None:
    handle = go_on_after_it.start()
    eventually(lambda: "InstanceStarted" in types(handle))
    handle.cancel()
    eventually(lambda: "CancelRequested" in types(handle))
    handle.cancel()
    handle.signal(go_on)
    assert handle.result(timeout=10) == ["cancelled", "signal"]
    assert types(handle).count("CancelRequested") == 1


@workflow(name="cancellation.raise_by_itself")
async def raise_by_itself() -> None:
    raise asyncio.CancelledError


def test_a_workflow_that_cancels_itself_has_failed(worker: Worker) -> None:
    handle = raise_by_itself.start()
    with pytest.raises(WorkflowFailed, match="CancelledError"):
        handle.result(timeout=10)


@workflow(name="cancellation.background")
async def background() -> str:
    key = workflow.info().instance_id

    async def work() -> None:
        try:
            await asyncio.sleep(86400)
        finally:
            await clean_up(key, "background task cleaned up")

    task = asyncio.create_task(work())
    await go_on.receive()
    del task
    return "never"


def test_background_tasks_are_cancelled_and_awaited(worker: Worker) -> None:
    handle = background.start()
    eventually(lambda: "TimerStarted" in types(handle))
    handle.cancel()
    assert_cancelled(handle)
    assert notes(handle.instance_id) == ["background task cleaned up"]


def test_cancel_before_the_first_step(consistent_tables: None, cache_size: int) -> None:
    handle = wait_for.start("sleep")
    handle.cancel()
    with running_worker(sticky_cache_size=cache_size):
        assert_cancelled(handle)
    # In order all the same: the start runs up to its first await, where the cancellation finds it.
    assert types(handle)[:4] == ["InstanceStarted", "TimerStarted", "CancelRequested", "TimerCancelled"]


def test_cancel_of_a_closed_instance(worker: Worker) -> None:
    handle = swallow.start()
    handle.cancel()
    handle.result(timeout=10)
    before = types(handle)
    with pytest.raises(InstanceNotRunning, match="completed"):
        handle.cancel()
    assert InboxEvent.objects.count() == 0
    assert types(handle) == before


@activity(name="cancellation.pass_gate")
def pass_gate(key: str) -> str:
    wait_at_gate(key)
    return "passed"


@workflow(name="cancellation.race")
async def race() -> list[str]:
    """Tell what came first; either way both are seen."""
    seen = []
    task = asyncio.create_task(pass_gate(workflow.info().instance_id))
    try:
        seen.append(await asyncio.shield(task))
    except asyncio.CancelledError:
        seen += ["cancelled", await task]
    try:
        await go_on.receive()
    except asyncio.CancelledError:
        seen.append("cancelled")
    return seen


@pytest.mark.parametrize("first", ["completion", "cancel"])
def test_cancel_and_completion_in_one_batch_are_applied_in_order(
    consistent_tables: None, cache_size: int, first: str
) -> None:
    """Both rows are in the inbox when the worker for workflows comes."""
    with running_worker(sticky_cache_size=cache_size, activities=False):
        handle = race.start()
        eventually(lambda: "ActivityScheduled" in types(handle))

    def complete() -> None:
        with running_worker(workflows=False):
            open_gate(handle.instance_id)
            eventually(lambda: InboxEvent.objects.filter(type="ActivityCompleted").exists())

    for action in (complete, handle.cancel) if first == "completion" else (handle.cancel, complete):
        action()
    assert InboxEvent.objects.count() == 2
    with running_worker(sticky_cache_size=cache_size):
        if first == "cancel":
            eventually(lambda: "ActivityCompleted" in types(handle))
            handle.signal(go_on)
        expected = ["passed", "cancelled"] if first == "completion" else ["cancelled", "passed"]
        assert handle.result(timeout=10) == expected
    inputs = [kind for kind in types(handle) if kind in ("ActivityCompleted", "CancelRequested")]
    assert inputs == [{"passed": "ActivityCompleted", "cancelled": "CancelRequested"}[seen] for seen in expected]


@workflow(name="cancellation.last_activity")
async def last_activity() -> str:
    return await pass_gate(workflow.info().instance_id)


def test_cancel_behind_the_completion_of_the_last_activity(consistent_tables: None, cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size, activities=False):
        handle = last_activity.start()
        eventually(lambda: "ActivityScheduled" in types(handle))
    with running_worker(workflows=False):
        open_gate(handle.instance_id)
        eventually(lambda: InboxEvent.objects.filter(type="ActivityCompleted").exists())
    handle.cancel()
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "passed"
    assert "CancelRequested" not in types(handle)


# Terminate


@workflow(name="cancellation.parent")
async def parent() -> None:
    try:
        await asyncio.gather(child(workflow.info().instance_id), wait(), asyncio.sleep(86400))
    finally:
        await clean_up(workflow.info().instance_id, "cleaned up")


def test_terminate_closes_at_once_and_runs_no_code(consistent_tables: None, cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handle = parent.start()
        child_row = eventually(WorkflowInstance.objects.filter(name="cancellation.child").first)
        handle.terminate("at once")
        assert handle.status == InstanceStatus.TERMINATED
        assert types(handle)[-1] == "InstanceTerminated"
        eventually(lambda: WorkflowInstance.objects.get(pk=child_row.pk).status == InstanceStatus.CANCELLED)
        swallow_after = swallow.start()
        swallow_after.cancel()
        swallow_after.result(timeout=10)
    assert notes(handle.instance_id) == ["child cleaned up"]
    assert types(handle)[-1] == "InstanceTerminated"
    with pytest.raises(InstanceNotRunning, match="terminated"):
        handle.terminate()


def test_terminate_without_any_worker(consistent_tables: None, cache_size: int) -> None:
    handle = parent.start()
    handle.terminate()
    assert handle.status == InstanceStatus.TERMINATED
    with running_worker(sticky_cache_size=cache_size):
        swallow_after = swallow.start()
        swallow_after.cancel()
        assert swallow_after.result(timeout=10) == "completed all the same"
    assert types(handle) == ["InstanceTerminated"]
    assert notes(handle.instance_id) == []

"""Leftovers: rows of finished and removed work that stayed, came back or ran."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from django_workflows import InstanceNotRunning, InstanceStatus, activity, workflow
from django_workflows.models import ActivityTask, Timer
from django_workflows.testing import running_worker
from tests.conformance.gates import note as write_down
from tests.conformance.gates import notes, open_gate
from tests.conformance.removal_support import rows_left
from tests.conformance.waiting import eventually

from .support import child, hold, number, word


@activity(name="others.of_nobody", queue="nobody")
def of_nobody(key: str) -> None:
    write_down(key, "ran")


@workflow(name="others.everything")
async def everything() -> int:
    """Use what leaves rows: an activity, a timer that fires and one that does not, a child, a signal."""
    total = await number(1) + await child(2)
    await workflow.sleep(0.01)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3600):
            await word.receive()
    return total


def test_finished_work_leaves_its_row_and_its_history_and_nothing_else(cache_size: int) -> None:
    """go-workflows, Redis: completed activities stayed in the list of pending ones."""
    with running_worker(sticky_cache_size=cache_size):
        handle = everything.start()
        handle.signal(word, "go")
        assert handle.result(timeout=60) == 3
    assert set(rows_left()) == {"WorkflowInstance", "HistoryEvent"}


@workflow(name="others.fails_with_work_open")
async def fails_with_work_open() -> None:
    others = [of_nobody("failed"), workflow.sleep(3600), number.using(queue="nobody")(1)]
    tasks = [asyncio.create_task(other) for other in others]
    await word.receive()
    raise LookupError(f"with {len(tasks)} tasks open")


def test_open_work_of_a_failed_instance_goes_with_it(cache_size: int) -> None:
    """go-workflows: pending events and activities of failed and removed runs leaked; to cancel one left a row."""
    with running_worker(sticky_cache_size=cache_size):
        handle = fails_with_work_open.start()
        eventually(lambda: ActivityTask.objects.count() == 2 and Timer.objects.exists())
        handle.signal(word, "fail")
        eventually(lambda: handle.status is InstanceStatus.FAILED, timeout=60)
        with pytest.raises(InstanceNotRunning):
            handle.cancel()
        assert set(rows_left()) == {"WorkflowInstance", "HistoryEvent"}
    handle.remove()
    assert rows_left() == {}


@workflow(name="others.waits_for_nobody")
async def waits_for_nobody(key: str) -> None:
    await of_nobody(key)


def test_an_activity_of_a_terminated_instance_does_not_begin(cache_size: int) -> None:
    """go-workflows: pending work of an instance that had ended stayed, to be taken and run."""
    gate = f"terminated {cache_size}"
    with running_worker(queues=("nobody",), threads=1) as busy, running_worker(sticky_cache_size=cache_size):
        hold.using(queue="nobody").start(gate)
        eventually(lambda: ActivityTask.objects.filter(owner_id=busy.id))
        ended, other = waits_for_nobody.start(f"{gate}: this"), waits_for_nobody.start(f"{gate}: other")
        eventually(lambda: ActivityTask.objects.filter(owner_id=None).count() == 2)
        ended.terminate()
        open_gate(gate)
        assert other.result(timeout=60) is None
        eventually(lambda: not ActivityTask.objects.exists())
    assert (notes(f"{gate}: this"), notes(f"{gate}: other")) == ([], ["ran"])

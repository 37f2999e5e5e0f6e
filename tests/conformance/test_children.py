"""Child workflows: results, failures and cancellation between executions, carried by inbox rows alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from django_workflows import (
    ChildWorkflowTerminated,
    RetryPolicy,
    Signal,
    WorkflowCancelled,
    WorkflowFailed,
    get_handle,
    workflow,
)
from django_workflows.models import InstanceStatus, WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.conformance.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

go_on: Signal[bool] = Signal("go_on", bool)


class Refused(Exception):
    """Raised by a child."""


@workflow(name="children.double")
async def double(number: int) -> int:
    if number < 0:
        raise Refused(number)
    return 2 * number


@workflow(name="children.wait")
async def wait() -> str:
    try:
        await go_on.receive()
    except asyncio.CancelledError:
        return "cleaned up"
    return "went on"


@workflow(name="children.catch")
async def catch() -> str:
    try:
        await double(-1)
    except Refused as error:
        return f"refused {error.args[0]}"
    return "not refused"


@workflow(name="children.parent")
async def parent() -> str:
    try:
        return await wait()
    except ChildWorkflowTerminated:
        return "child terminated"


@workflow(name="children.nap")
async def nap() -> None:
    await asyncio.sleep(3600)


@workflow(name="children.nap_parent")
async def nap_parent() -> None:
    await nap()


@workflow(name="children.grandparent")
async def grandparent(depth: int) -> int:
    return depth if depth == 0 else 1 + await grandparent(depth - 1)


def open_child() -> WorkflowInstance | None:
    return WorkflowInstance.objects.open().filter(name="children.wait").first()


def test_a_hundred_run_side_by_side_and_their_results_come_back_in_order(worker: Worker) -> None:
    assert doubles.start(100).result(timeout=60) == list(range(0, 200, 2))


@workflow(name="children.doubles")
async def doubles(count: int) -> list[int]:
    return await asyncio.gather(*(double(number) for number in range(count)))


def test_a_childs_exception_arrives_as_itself(worker: Worker) -> None:
    assert catch.start().result(timeout=20) == "refused -1"


def test_an_uncaught_childs_exception_fails_the_parent(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed, match="Refused"):
        add_negative.start().result(timeout=20)


@workflow(name="children.add_negative")
async def add_negative() -> int:
    return await double(-1)


def test_three_levels_run(worker: Worker) -> None:
    handle = grandparent.start(3)
    assert handle.result(timeout=20) == 3
    roots = WorkflowInstance.objects.exclude(pk=handle.describe().pk).values_list("root_id", flat=True)
    assert set(roots) == {handle.describe().pk}


def test_a_child_may_run_in_another_queue(consistent_tables: None, cache_size: int) -> None:
    handle = elsewhere.start()
    with running_worker(sticky_cache_size=cache_size):
        child = eventually(lambda: WorkflowInstance.objects.filter(name="children.double").first())
        assert child.queue == "elsewhere"
        with running_worker(queues=["elsewhere"], sticky_cache_size=cache_size):
            assert handle.result(timeout=20) == 8


@workflow(name="children.elsewhere")
async def elsewhere() -> int:
    return await double.using(queue="elsewhere")(4)


def test_a_child_is_retried_by_its_policy_and_its_parent_sees_the_last_result(worker: Worker) -> None:
    handle = patient.start()
    assert handle.result(timeout=20) == 3
    attempts = WorkflowInstance.objects.filter(name="children.third_time").order_by("id")
    assert list(attempts.values_list("attempt", "status")) == [(1, "failed"), (2, "failed"), (3, "completed")]
    assert len(handle.history()) == 4


@workflow(name="children.third_time")
async def third_time() -> int:
    attempt = workflow.info().attempt
    if attempt < 3:
        raise Refused(attempt)
    return attempt


@workflow(name="children.patient")
async def patient() -> int:
    policy = RetryPolicy(max_attempts=5, initial_interval=timedelta(milliseconds=10))
    return await third_time.using(retry=policy)()


def test_of_a_child_that_continues_as_new_its_parent_sees_the_last_result(worker: Worker) -> None:
    handle = of_rounds.start()
    assert handle.result(timeout=20) == 5
    assert WorkflowInstance.objects.filter(name="children.rounds", status="continued_as_new").count() == 5
    assert [event.type for event in handle.history()] == [
        "InstanceStarted", "ChildScheduled", "ChildCompleted", "InstanceCompleted",
    ]  # fmt: skip


@workflow(name="children.rounds")
async def rounds(number: int) -> int:
    if number < 5:
        workflow.continue_as_new(number + 1)
    return number


@workflow(name="children.of_rounds")
async def of_rounds() -> int:
    return await rounds(0)


def test_a_child_inherits_the_queue_and_knows_its_root(worker: Worker) -> None:
    handle = parent.start()
    child = eventually(open_child)
    assert child.queue == "default"
    assert child.parent_id == child.root_id == handle.describe().pk
    get_handle(child.instance_id).signal(go_on, True)
    assert handle.result(timeout=20) == "went on"


def test_cancelling_the_parent_cancels_the_child_and_awaits_it(worker: Worker) -> None:
    handle = nap_parent.start()
    child = eventually(lambda: WorkflowInstance.objects.open().filter(name="children.nap").first())
    handle.cancel()
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=20)
    assert get_handle(child.instance_id).status == InstanceStatus.CANCELLED
    assert [event.type for event in handle.history()][2:] == [
        "CancelRequested", "ChildCancelRequested", "ChildFailed", "InstanceCancelled"
    ]  # fmt: skip


def test_a_child_that_returns_in_spite_of_its_cancellation_gives_the_parent_its_result(worker: Worker) -> None:
    handle = parent.start()
    child = eventually(open_child)
    handle.cancel()
    assert handle.result(timeout=20) == "cleaned up"
    assert get_handle(child.instance_id).result(timeout=20) == "cleaned up"


def test_terminating_a_child_surfaces_in_the_parent(worker: Worker) -> None:
    handle = parent.start()
    child = eventually(open_child)
    get_handle(child.instance_id).terminate("not needed")
    assert handle.result(timeout=20) == "child terminated"

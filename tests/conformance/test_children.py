"""Child workflows: results, failures and cancellation between executions, carried by inbox rows alone."""

from __future__ import annotations

import asyncio

import pytest

from django_workflows import ChildWorkflowTerminated, Signal, WorkflowCancelled, WorkflowFailed, get_handle, workflow
from django_workflows.models import InstanceStatus, WorkflowInstance
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


@workflow(name="children.add_doubles")
async def add_doubles(count: int) -> int:
    return sum(await asyncio.gather(*(double(number) for number in range(count))))


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


def test_results_come_back_in_order(worker: Worker) -> None:
    assert add_doubles.start(20).result(timeout=20) == 380


def test_a_childs_exception_arrives_as_itself(worker: Worker) -> None:
    assert catch.start().result(timeout=20) == "refused -1"


def test_an_uncaught_childs_exception_fails_the_parent(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed, match="Refused"):
        add_negative.start().result(timeout=20)


@workflow(name="children.add_negative")
async def add_negative() -> int:
    return await double(-1)


def test_three_levels_run(worker: Worker) -> None:
    assert grandparent.start(3).result(timeout=20) == 3


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


def test_terminating_the_parent_cancels_the_child(worker: Worker) -> None:
    handle = parent.start()
    child = eventually(open_child)
    handle.terminate()
    assert handle.status == InstanceStatus.TERMINATED
    assert get_handle(child.instance_id).result(timeout=20) == "cleaned up"

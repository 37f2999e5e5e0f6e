"""What becomes of children when their parent closes or gives up waiting for them: `parent_close`."""

from __future__ import annotations

import asyncio

import pytest
from django.db import transaction

from django_workflows import (
    ChildWorkflowTerminated,
    InstanceStatus,
    Signal,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowHandle,
    get_handle,
    workflow,
)
from django_workflows.engine.events import ParentClose
from django_workflows.models import WorkflowInstance
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect

from .store_support import elsewhere, skip_without_row_locks
from .waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

word: Signal[str] = Signal("policies.word", str)

POLICIES: list[tuple[ParentClose, InstanceStatus]] = [
    ("cancel", InstanceStatus.CANCELLED),
    ("terminate", InstanceStatus.TERMINATED),
    ("abandon", InstanceStatus.RUNNING),
]
policies = pytest.mark.parametrize(("policy", "status"), POLICIES, ids=[policy for policy, _ in POLICIES])
chosen_or_not = pytest.mark.parametrize("chosen", [False, True], ids=["own id", "chosen id"])


@workflow(name="policies.child")
async def child() -> str:
    return await word.receive()


@workflow(name="policies.stubborn")
async def stubborn() -> str:
    try:
        return await word.receive()
    except asyncio.CancelledError:
        return "swallowed"


@workflow(name="policies.parent")
async def parent(policy: ParentClose, chosen: bool, how: str) -> str:
    """Start a child that waits, and end as told."""
    if how == "rest":
        return await word.receive()
    using = child.using(parent_close=policy, instance_id="chosen" if chosen else None)
    handle = using.start_child()
    await handle.started()
    if how == "await":
        return await handle
    if how == "return":
        return "returned"
    told = await word.receive()
    if told == "fail":
        raise LookupError("told to")
    if told == "continue":
        workflow.continue_as_new(policy, chosen, "rest")
    return told


@workflow(name="policies.grandparent")
async def grandparent(policy: ParentClose) -> str:
    return await parent.using(parent_close=policy)(policy, False, "await")


def the_child() -> WorkflowInstance | None:
    return WorkflowInstance.objects.filter(name="policies.child").first()


def start(policy: ParentClose, chosen: bool, how: str) -> tuple[WorkflowHandle[str], WorkflowHandle[object]]:
    """Return a parent and its running child."""
    handle = parent.start(policy, chosen, how)
    found = eventually(the_child)
    eventually(get_handle(found.instance_id).history)
    return handle, get_handle(found.instance_id)


def becomes(handle: WorkflowHandle[object], status: InstanceStatus) -> bool:
    """Wait until a child has the status it was to have; one that was left alone answers a signal."""
    if status is InstanceStatus.RUNNING:
        assert handle.status is InstanceStatus.RUNNING
        handle.signal(word, "alone")
        return handle.result(timeout=20) == "alone"
    return eventually(lambda: handle.status is status)


@policies
@chosen_or_not
def test_a_terminated_parent(worker: Worker, policy: ParentClose, status: InstanceStatus, chosen: bool) -> None:
    handle, of_child = start(policy, chosen, "await")
    handle.terminate("no longer wanted")
    assert becomes(of_child, status)


@policies
def test_a_cancelled_parent(worker: Worker, policy: ParentClose, status: InstanceStatus) -> None:
    handle, of_child = start(policy, False, "await")
    handle.cancel()
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=20)
    assert becomes(of_child, status)


@policies
def test_a_failed_parent(worker: Worker, policy: ParentClose, status: InstanceStatus) -> None:
    handle, of_child = start(policy, True, "listen")
    handle.signal(word, "fail")
    with pytest.raises(WorkflowFailed, match="told to"):
        handle.result(timeout=20)
    assert becomes(of_child, status)


@policies
def test_a_parent_that_continued_as_new(worker: Worker, policy: ParentClose, status: InstanceStatus) -> None:
    handle, of_child = start(policy, False, "listen")
    handle.signal(word, "continue")
    assert becomes(of_child, status)
    handle.terminate()


def test_a_returned_parent_waits_for_its_child(worker: Worker) -> None:
    handle, of_child = start("cancel", False, "return")
    eventually(lambda: len(handle.history()) >= 2)
    assert handle.status is InstanceStatus.RUNNING
    of_child.signal(word, "done")
    assert handle.result(timeout=20) == "returned"


def test_a_returned_parent_does_not_wait_for_a_child_that_it_abandons(worker: Worker) -> None:
    handle, of_child = start("abandon", False, "return")
    assert handle.result(timeout=20) == "returned"
    assert becomes(of_child, InstanceStatus.RUNNING)


@policies
def test_three_levels_go_together(worker: Worker, policy: ParentClose, status: InstanceStatus) -> None:
    handle = grandparent.start(policy)
    of_child = get_handle(eventually(the_child).instance_id)
    eventually(of_child.history)
    handle.terminate()
    assert becomes(of_child, status)
    if status is InstanceStatus.RUNNING:
        get_handle(WorkflowInstance.objects.get(name="policies.parent").instance_id).result(timeout=20)


def test_a_terminated_child_runs_no_code_and_its_parent_goes_on_at_once(worker: Worker) -> None:
    handle = bounded.start()
    assert handle.result(timeout=20) == "gave up"
    of_child = get_handle(eventually(lambda: WorkflowInstance.objects.get(name="policies.untidy")).instance_id)
    eventually(lambda: of_child.status is InstanceStatus.TERMINATED)
    assert [event.type for event in of_child.history()][-2:] == ["TerminateRequested", "InstanceTerminated"]
    assert not Effect.objects.filter(key="clean-up").exists()


@workflow(name="policies.untidy")
async def untidy() -> None:
    try:
        await word.receive()
    finally:
        raise AssertionError("its clean-up code must not run")


@workflow(name="policies.bounded")
async def bounded() -> str:
    try:
        async with asyncio.timeout(0.2):
            await untidy.using(parent_close="terminate")()
    except TimeoutError:
        return "gave up"
    return "returned"


def test_a_child_that_swallows_its_cancellation_gives_its_result(worker: Worker) -> None:
    handle = patient.start()
    eventually(lambda: WorkflowInstance.objects.filter(name="policies.stubborn").exists())
    handle.cancel()
    assert handle.result(timeout=20) == "swallowed"


@workflow(name="policies.patient")
async def patient() -> str:
    return await stubborn()


def test_a_cancellation_is_not_lost_to_a_child_that_ends_at_the_same_moment(worker: Worker) -> None:
    handle, of_child = start("cancel", False, "await")
    with transaction.atomic():
        handle.cancel()
        of_child.signal(word, "done")
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=20)


def test_an_abandoned_child_of_the_last_step_starts(worker: Worker) -> None:
    for chosen in (False, True):
        handle = last_step.start(chosen)
        assert handle.result(timeout=20) == "returned"
        of_child = get_handle("last" if chosen else eventually(the_child).instance_id)
        of_child.signal(word, "alone")
        assert of_child.result(timeout=20) == "alone"


@workflow(name="policies.last_step")
async def last_step(chosen: bool) -> str:
    child.using(parent_close="abandon", instance_id="last" if chosen else None).start_child()
    return "returned"


@pytest.mark.parametrize("how", ["fail", "continue"])
@chosen_or_not
def test_an_abandoned_child_of_a_last_step_that_did_not_return_starts_too(
    worker: Worker, how: str, chosen: bool
) -> None:
    handle = rash.start(how, chosen)
    of_child = get_handle("rash" if chosen else eventually(the_child).instance_id)
    eventually(lambda: WorkflowInstance.objects.filter(instance_id=of_child.instance_id).exists())
    of_child.signal(word, "alone")
    assert of_child.result(timeout=20) == "alone"
    if how == "continue":
        assert handle.result(timeout=20) == "done"


@workflow(name="policies.rash")
async def rash(how: str, chosen: bool) -> str:
    if how == "done":
        return how
    child.using(parent_close="abandon", instance_id="rash" if chosen else None).start_child()
    if how == "continue":
        workflow.continue_as_new("done", chosen)
    raise LookupError("told to")


@pytest.mark.parametrize("policy", ["cancel", "terminate"])
def test_other_children_of_such_a_step_do_not_start(worker: Worker, policy: ParentClose) -> None:
    for chosen in (False, True):
        assert hasty.start(policy, chosen).result(timeout=20) == "done"
    assert the_child() is None


@workflow(name="policies.hasty")
async def hasty(policy: ParentClose, chosen: bool, again: bool = True) -> str:
    if again:
        child.using(parent_close=policy, instance_id="hasty" if chosen else None).start_child()
        workflow.continue_as_new(policy, chosen, False)
    return "done"


@policies
def test_a_parent_terminated_while_its_child_is_starting(
    worker: Worker, policy: ParentClose, status: InstanceStatus
) -> None:
    skip_without_row_locks()
    with elsewhere(child.using(instance_id="chosen").start, end="rollback"):
        handle = parent.start(policy, True, "await")
        eventually(lambda: len(handle.history()) == 2)
        handle.terminate()
    if status is InstanceStatus.RUNNING:
        eventually(lambda: the_child())
        assert becomes(get_handle("chosen"), status)
    else:
        eventually(lambda: not WorkflowInstance.objects.open().exists())


def test_a_child_that_is_terminated_by_somebody_surfaces_in_its_parent(worker: Worker) -> None:
    handle, of_child = start("cancel", True, "await")
    of_child.terminate("by somebody")
    with pytest.raises(WorkflowFailed) as caught:
        handle.result(timeout=20)
    assert isinstance(caught.value.__cause__, ChildWorkflowTerminated)
    assert "by somebody" in str(caught.value)


def test_a_child_that_is_replaced_by_a_new_start_of_its_id_surfaces_too(worker: Worker) -> None:
    handle, of_child = start("cancel", True, "await")
    child.using(instance_id=of_child.instance_id, on_conflict="terminate_existing").start()
    with pytest.raises(WorkflowFailed, match="replaced by a new start"):
        handle.result(timeout=20)
    of_child.terminate()


def test_a_child_that_was_removed_after_its_end_has_told_its_parent(worker: Worker) -> None:
    handle, of_child = start("cancel", True, "await")
    of_child.signal(word, "done")
    of_child.result(timeout=20)
    of_child.remove()
    assert handle.result(timeout=20) == "done"


def test_a_child_whose_parent_was_removed_ends_by_itself(worker: Worker) -> None:
    handle, of_child = start("abandon", True, "await")
    handle.terminate()
    handle.remove()
    of_child.signal(word, "orphan")
    assert of_child.result(timeout=20) == "orphan"
    assert of_child.describe().closed_at is not None

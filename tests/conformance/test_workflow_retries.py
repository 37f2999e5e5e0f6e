"""Retries of whole workflows: each attempt is an execution of its own, one chain to everybody outside."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from django_workflows import (
    InstanceStatus,
    RetryPolicy,
    Signal,
    WorkflowCancelled,
    WorkflowFailed,
    activity,
    get_handle,
    workflow,
)
from django_workflows.models import OpenInstance, Timer, WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect

from .waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

SOON = RetryPolicy(max_attempts=3, initial_interval=timedelta(milliseconds=20), backoff=1)
LATE = RetryPolicy(max_attempts=3, initial_interval=timedelta(hours=1), max_interval=timedelta(hours=1))

word: Signal[str] = Signal("retried.word", str)


class NotYet(Exception):
    """Ends an attempt."""


@activity(name="retried.note")
def note(attempt: int) -> None:
    Effect.objects.create(key="attempt", value=attempt)


@workflow(name="retried.flaky", retry=SOON)
async def flaky(succeeds: int) -> str:
    attempt = workflow.info().attempt
    await note(attempt)
    if attempt < succeeds:
        raise NotYet(f"attempt {attempt}")
    return f"attempt {attempt}"


@workflow(name="retried.listener", retry=SOON)
async def listener() -> str:
    heard = await word.receive()
    if heard == "fail":
        raise NotYet(heard)
    return f"{heard} in attempt {workflow.info().attempt}"


@workflow(name="retried.parent")
async def parent(succeeds: int) -> str:
    return await flaky(succeeds)


@workflow(name="retried.rounds", retry=SOON)
async def rounds(number: int) -> str:
    if number == 0 and workflow.info().attempt == 1:
        raise NotYet("the first attempt of the first round")
    if number < 2:
        workflow.continue_as_new(number + 1)
    return f"round {number}, attempt {workflow.info().attempt}"


def attempts() -> list[int]:
    return list(Effect.objects.filter(key="attempt").order_by("pk").values_list("value", flat=True))


def executions(instance_id: str) -> list[tuple[int, str]]:
    rows = WorkflowInstance.objects.filter(instance_id=instance_id).order_by("id")
    return list(rows.values_list("attempt", "status"))


def test_the_result_is_that_of_the_attempt_that_succeeds(worker: Worker) -> None:
    handle = flaky.using(instance_id="flaky").start(3)
    first = get_handle("flaky", handle.describe().execution_id)

    assert handle.result(timeout=20) == "attempt 3"
    assert first.result(timeout=20) == "attempt 3", "a handle bound to the first attempt follows the chain"
    assert attempts() == [1, 2, 3]
    assert executions("flaky") == [(1, "failed"), (2, "failed"), (3, "completed")]
    assert handle.describe().attempt == 3
    assert first.describe().attempt == 1
    assert first.history()[-1].type == "InstanceFailed"


def test_the_failure_is_that_of_the_last_attempt(worker: Worker) -> None:
    handle = flaky.start(4)
    with pytest.raises(WorkflowFailed, match="attempt 3"):
        handle.result(timeout=20)
    assert executions(handle.instance_id) == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert not OpenInstance.objects.exists()


def test_a_call_may_choose_another_policy_or_none(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed, match="attempt 1"):
        flaky.using(retry=None).start(2).result(timeout=20)
    with pytest.raises(WorkflowFailed, match="attempt 1"):
        flaky.using(retry=RetryPolicy(non_retryable=(NotYet,))).start(2).result(timeout=20)
    five = RetryPolicy(max_attempts=5, initial_interval=timedelta(0))
    assert flaky.using(retry=five).start(5).result(timeout=20) == "attempt 5"


def test_the_next_attempt_begins_after_the_pause_to_the_microsecond(worker: Worker) -> None:
    handle = flaky.using(retry=LATE).start(2)
    eventually(lambda: Timer.objects.exists())
    first, second = WorkflowInstance.objects.filter(instance_id=handle.instance_id).order_by("id")
    [timer] = Timer.objects.all()
    failed = get_handle(handle.instance_id, first.execution_id).history()[-1]
    assert timer.instance_id == second.pk
    assert timer.fire_at - failed.time == timedelta(hours=1)
    handle.terminate()


def test_during_the_pause_the_instance_is_open(worker: Worker) -> None:
    handle = flaky.using(instance_id="flaky", retry=LATE).start(2)
    eventually(lambda: Timer.objects.exists())
    assert handle.status == InstanceStatus.RUNNING
    same = flaky.using(instance_id="flaky", on_conflict="use_existing").start(1)
    assert same.describe().pk == handle.describe().pk
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.05)
    handle.terminate("enough")
    assert executions("flaky") == [(1, "failed"), (2, "terminated")]


def test_cancelled_during_the_pause_it_closes_as_cancelled(worker: Worker) -> None:
    handle = flaky.using(retry=LATE).start(2)
    eventually(lambda: Timer.objects.exists())
    handle.cancel()
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=20)
    assert attempts() == [1]
    assert executions(handle.instance_id) == [(1, "failed"), (2, "cancelled")]
    assert not Timer.objects.exists()


def test_a_cancelled_attempt_is_not_retried(worker: Worker) -> None:
    handle = listener.start()
    eventually(handle.history)
    handle.cancel()
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=20)
    assert executions(handle.instance_id) == [(1, "cancelled")]


def test_signals_outlive_the_attempt_that_did_not_receive_them(consistent_tables: None, cache_size: int) -> None:
    handle = listener.start()
    for value in ("fail", "fail", "kept"):
        handle.signal(word, value)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=20) == "kept in attempt 3"


def test_the_pause_outlives_the_worker(consistent_tables: None) -> None:
    slow = RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=300))
    with running_worker():
        handle = flaky.using(retry=slow).start(2)
        eventually(lambda: Timer.objects.exists())
    with running_worker():
        assert handle.result(timeout=20) == "attempt 2"


def test_a_parent_sees_the_last_result_only(worker: Worker) -> None:
    handle = parent.start(3)
    assert handle.result(timeout=20) == "attempt 3"
    assert [event.type for event in handle.history()] == [
        "InstanceStarted", "ChildScheduled", "ChildCompleted", "InstanceCompleted",
    ]  # fmt: skip


def test_a_parent_sees_the_last_failure_only(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed) as caught:
        parent.start(9).result(timeout=20)
    assert isinstance(caught.value.__cause__, NotYet)
    assert caught.value.__cause__.args == ("attempt 3",)


def test_continuing_as_new_begins_to_count_anew(worker: Worker) -> None:
    handle = rounds.using(instance_id="rounds").start(0)
    assert handle.result(timeout=20) == "round 2, attempt 1"
    assert executions("rounds") == [
        (1, "failed"), (2, "continued_as_new"), (1, "continued_as_new"), (1, "completed"),
    ]  # fmt: skip


def test_open_work_of_a_failed_attempt_ends_with_it(worker: Worker) -> None:
    handle = busy.start()
    assert handle.result(timeout=20) == "attempt 2"
    eventually(lambda: not WorkflowInstance.objects.open().exists())
    assert not Timer.objects.exists()
    statuses = WorkflowInstance.objects.filter(name="retried.listener").values_list("status", flat=True)
    assert list(statuses) == ["cancelled"]


@workflow(name="retried.busy", retry=SOON)
async def busy() -> str:
    if workflow.info().attempt == 2:
        return "attempt 2"
    listener.start_child()
    asyncio.create_task(asyncio.sleep(3600))  # noqa: RUF006
    await note(0)
    raise NotYet("with open work")


def test_removing_takes_every_attempt(worker: Worker) -> None:
    handle = flaky.using(instance_id="flaky").start(3)
    handle.result(timeout=20)
    handle.remove()
    assert not WorkflowInstance.objects.exists()

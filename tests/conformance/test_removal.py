"""Removing instances: one by one, in bulk by age and status, by setting; never an orphan row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from django_workflows import InstanceNotFinished, InstanceNotFound, InstanceStatus, Signal, activity, workflow
from django_workflows.models import ActivityTask, HistoryEvent, InboxEvent, OpenInstance, Timer, WorkflowInstance
from django_workflows.store import leftovers, retention
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.workflows import greet

from .waiting import eventually, in_threads, waiting_for_locks

wake = Signal("wake", str)


@activity(name="removal.work", queue="nobody")
def work() -> None: ...


@workflow(name="removal.busy")
async def busy() -> str:
    """Keep a task, a timer and a child open for as long as nobody signals."""
    others = [asyncio.create_task(work()), asyncio.create_task(workflow.sleep(3600)), asyncio.create_task(sleeper())]
    value = await wake.receive()
    for other in others:
        other.cancel()
    return value


@workflow(name="removal.sleeper")
async def sleeper() -> None:
    await workflow.sleep(3600)


@workflow(name="removal.fail")
async def fail() -> None:
    raise LookupError("failed")


@workflow(name="removal.chain")
async def chain(rounds: int) -> int:
    if rounds:
        workflow.continue_as_new(rounds - 1)
    return rounds


def rows_left() -> dict[str, int]:
    models = (WorkflowInstance, OpenInstance, HistoryEvent, InboxEvent, ActivityTask, Timer)
    counts = {model.__name__: model._default_manager.count() for model in models}
    return {name: count for name, count in counts.items() if count}


def age(instances: Any, **delta: float) -> None:
    """Make closed instances look as if they had closed that long ago."""
    for row in instances:
        WorkflowInstance.objects.filter(pk=row.pk).update(closed_at=timezone.now() - timedelta(**delta))


def prune(statuses: list[str] | None = None, **delta: float) -> int:
    return retention.prune(Database(), timezone.now() - timedelta(**delta), statuses)


@contextmanager
def counted_deletes(table: str) -> Iterator[list[int]]:
    """Collect how many rows each DELETE on a table took."""
    counts: list[int] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("DELETE") and table in sql:
            counts.append(context["cursor"].rowcount)
        return result

    with connection.execute_wrapper(watch):
        yield counts


# One by one


def test_removed_instance_is_gone_with_its_history(worker: Worker) -> None:
    handle = greet.using(instance_id="order-1").start("hello")
    other = greet.start("other")
    handle.result(timeout=10)
    other.result(timeout=10)

    handle.remove()

    with pytest.raises(InstanceNotFound):
        handle.describe()
    assert rows_left() == {"WorkflowInstance": 1, "HistoryEvent": 4}
    assert other.result() == "other world"


def test_removal_takes_tasks_timers_and_messages_along(cache_size: int) -> None:
    """A terminated instance leaves them behind for the sweep, which may not have come by yet."""
    handle = busy.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: ActivityTask.objects.exists() and Timer.objects.count() == 2)
    handle.signal(wake, "too late")
    handle.terminate()
    [child] = WorkflowInstance.objects.open()
    sleeper.handle(child.instance_id).terminate()
    assert set(rows_left()) == {"WorkflowInstance", "HistoryEvent", "InboxEvent", "ActivityTask", "Timer"}

    handle.remove()
    sleeper.handle(child.instance_id).remove()

    assert rows_left() == {}


def test_open_instance_is_not_removed() -> None:
    handle = greet.using(instance_id="order-1").start("hello")

    with pytest.raises(InstanceNotFinished, match=r"'order-1'.*running.*cancel or terminate"):
        handle.remove()
    assert handle.status is InstanceStatus.RUNNING


def test_refused_removal_leaves_the_callers_transaction_usable() -> None:
    handle = greet.start("hello")
    with transaction.atomic():
        with pytest.raises(InstanceNotFinished):
            handle.remove()
        assert handle.status is InstanceStatus.RUNNING


def test_unknown_instance_is_not_removed() -> None:
    with pytest.raises(InstanceNotFound):
        greet.handle("nobody").remove()


def test_removing_one_execution_keeps_the_others_of_its_id(worker: Worker) -> None:
    handle = greet.using(instance_id="order-1").start("first")
    handle.result(timeout=10)
    first = handle.describe().execution_id
    greet.using(instance_id="order-1").start("second").result(timeout=10)

    greet.handle("order-1", first).remove()

    assert handle.result() == "second world"
    with pytest.raises(InstanceNotFound):
        greet.handle("order-1", first).describe()


def test_closed_execution_of_an_open_id_can_be_removed(worker: Worker) -> None:
    handle = busy.using(instance_id="order-1").start()
    handle.signal(wake, "first")
    handle.result(timeout=10)
    first = handle.describe().execution_id
    busy.using(instance_id="order-1").start()

    busy.handle("order-1", first).remove()

    handle.signal(wake, "second")
    assert handle.result(timeout=10) == "second"


def test_removal_waits_for_whoever_holds_the_row_and_then_removes_it(worker: Worker) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("there is one writer at a time")
    handle = greet.start("hello")
    handle.result(timeout=10)
    with transaction.atomic():
        WorkflowInstance.objects.select_for_update().get(pk=handle.describe().pk)
        remover = threading.Thread(target=in_threads, args=(handle.remove,))
        remover.start()
        eventually(lambda: waiting_for_locks() >= 1)
    remover.join(timeout=10)
    assert rows_left() == {}


# In bulk


def test_prune_removes_by_age(worker: Worker) -> None:
    old, young = greet.start_many([("old",)] * 3), greet.start_many([("young",)] * 2)
    for handle in (*old, *young):
        handle.result(timeout=10)
    running = busy.start()
    eventually(running.history)
    age([handle.describe() for handle in old], days=8)

    assert prune(days=7) == 3

    assert {row.pk for row in WorkflowInstance.objects.filter(name=greet.name)} == {h.describe().pk for h in young}
    assert HistoryEvent.objects.filter(type="InstanceCompleted").count() == 2
    running.signal(wake, "untouched")
    assert running.result(timeout=10) == "untouched"


def test_prune_removes_by_status(worker: Worker) -> None:
    completed, failed, terminated = greet.start("x"), fail.start(), sleeper.start()
    completed.result(timeout=10)
    eventually(lambda: failed.status is InstanceStatus.FAILED)
    terminated.terminate()
    age(WorkflowInstance.objects.all(), days=1)

    assert prune(["failed", "terminated"], hours=1) == 2
    assert [row.name for row in WorkflowInstance.objects.all()] == [greet.name]


def test_prune_works_in_bounded_batches(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    for handle in greet.start_many([("x",)] * 35):
        handle.result(timeout=20)

    with counted_deletes(WorkflowInstance._meta.db_table) as deletes:
        assert prune(hours=-1) == 35

    assert len(deletes) == 4
    assert rows_left() == {}


def test_batches_are_bounded_by_their_histories_too(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_EVENTS", 10)  # a greeting has four
    for handle in greet.start_many([("x",)] * 6):
        handle.result(timeout=20)

    with counted_deletes(WorkflowInstance._meta.db_table) as deletes:
        assert prune(hours=-1) == 6

    assert len(deletes) == 3
    assert rows_left() == {}


def test_one_history_above_the_bound_is_removed_in_pages(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_EVENTS", 1)
    monkeypatch.setattr(retention, "_PAGE", 3)
    greet.start("x").result(timeout=10)

    with counted_deletes(HistoryEvent._meta.db_table) as deletes:
        assert prune(hours=-1) == 1

    assert len(deletes) == 2
    assert rows_left() == {}


def test_prune_begins_no_batch_after_its_time(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for handle in greet.start_many([("x",)] * 5):
        handle.result(timeout=20)
    before = timezone.now() + timedelta(hours=1)
    assert retention.prune(Database(), before, seconds=0) == 2
    assert retention.prune(Database(), before) == 3


def test_prune_leaves_out_what_others_hold_locked(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("there is one writer at a time")
    monkeypatch.setattr(retention, "BATCH", 2)
    handles = greet.start_many([("x",)] * 6)
    for handle in handles:
        handle.result(timeout=10)
    with transaction.atomic():
        first = WorkflowInstance.objects.order_by("closed_at", "id")[:2]
        # One by one: MariaDB would lock every row that it sorts.
        held = [WorkflowInstance.objects.select_for_update().get(pk=row.pk) for row in first]
        assert in_threads(lambda: prune(hours=-1)) == [4]
    assert set(WorkflowInstance.objects.all()) == set(held)
    assert prune(hours=-1) == 2


def test_prune_takes_a_continued_chain_whole(worker: Worker) -> None:
    chain.start(5).result(timeout=20)
    assert WorkflowInstance.objects.count() == 6

    assert prune(hours=-1) == 6
    assert rows_left() == {}


def test_prune_of_early_executions_leaves_the_running_one_alone(worker: Worker) -> None:
    handle = continued_then_waiting.start(2)
    eventually(lambda: OpenInstance.objects.filter(history_length__gt=0) and WorkflowInstance.objects.count() == 3)

    assert prune(hours=-1) == 2

    handle.signal(wake, "still here")
    assert handle.result(timeout=10) == "still here"


@workflow(name="removal.continued_then_waiting")
async def continued_then_waiting(rounds: int) -> str:
    if rounds:
        workflow.continue_as_new(rounds - 1)
    return await wake.receive()


def test_undelivered_signal_stays_until_the_last_execution_of_its_chain_goes(cache_size: int) -> None:
    handle = continued_then_waiting.start(1)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: WorkflowInstance.objects.count() == 2 and InboxEvent.objects.count() == 0)
    first, second = WorkflowInstance.objects.order_by("id")
    handle.signal(wake, "too late")
    handle.terminate()

    continued_then_waiting.handle(handle.instance_id, second.execution_id).remove()
    assert InboxEvent.objects.count() == 1
    continued_then_waiting.handle(handle.instance_id, first.execution_id).remove()

    assert rows_left() == {}


def test_prune_inside_a_transaction_can_be_rolled_back(worker: Worker) -> None:
    greet.start("x").result(timeout=10)
    with pytest.raises(LookupError), transaction.atomic():
        assert prune(hours=-1) == 1
        raise LookupError
    assert rows_left() == {"WorkflowInstance": 1, "HistoryEvent": 4}


# By setting


@override_settings(DJANGO_WORKFLOWS={"RETENTION": {"completed": timedelta(days=7), "failed": timedelta(days=30)}})
def test_worker_removes_what_the_retention_setting_says(cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        old, young, failed = greet.start("old"), greet.start("young"), fail.start()
        old.result(timeout=10)
        young.result(timeout=10)
        eventually(lambda: failed.status is InstanceStatus.FAILED)
    age([old.describe(), failed.describe()], days=8)

    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: not WorkflowInstance.objects.filter(instance_id=old.instance_id).exists())
    assert young.result() == "young world"
    assert failed.status is InstanceStatus.FAILED
    assert HistoryEvent.objects.filter(instance_id=young.describe().pk).count() == 4


def test_without_the_setting_everything_is_kept(cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handle = greet.start("x")
        handle.result(timeout=10)
    age([handle.describe()], days=10_000)

    with running_worker(sticky_cache_size=cache_size):
        greet.start("y").result(timeout=10)
    assert handle.result() == "x world"


# Leftovers


def test_worker_sweeps_what_a_terminated_instance_left_behind(cache_size: int) -> None:
    handle = busy.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: ActivityTask.objects.exists() and Timer.objects.count() == 2)
    handle.terminate()

    with running_worker(sticky_cache_size=cache_size):
        # The child was asked to cancel, which ends its timer; the parent's own rows are swept.
        eventually(lambda: not Timer.objects.exists() and not ActivityTask.objects.exists())
        eventually(lambda: not InboxEvent.objects.exists())
    assert set(WorkflowInstance.objects.values_list("status", flat=True)) == {"terminated", "cancelled"}


def test_sweep_leaves_open_instances_alone(cache_size: int) -> None:
    handle = busy.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: ActivityTask.objects.exists() and Timer.objects.count() == 2)
    before = rows_left()

    assert leftovers.sweep(Database()) == 0
    assert rows_left() == before
    handle.signal(wake, "done")
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "done"

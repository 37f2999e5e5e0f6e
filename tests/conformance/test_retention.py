"""Removing instances in bulk, by age and status, and by setting; never an orphan row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from django_workflows import InstanceStatus, UpdateNotAnswered
from django_workflows.models import HistoryEvent, InboxEvent, OpenInstance, WorkflowInstance, WorkflowUpdate
from django_workflows.store import retention
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from django_workflows.worker import lease
from django_workflows.worker.clock import DatabaseClock
from django_workflows.worker.worker import Worker
from tests.testapp.workflows import greet

from .carts import Cart
from .removal_support import age, busy, chain, continued_then_waiting, fail, rows_left, sleeper, wake
from .store_support import skip_without_row_locks
from .waiting import eventually, in_threads

CLOSED = [status for status in InstanceStatus if status.is_closed]


def prune(*statuses: str, batch_size: int = retention.BATCH, **delta: float) -> int:
    """Remove what has been closed for that long, in one of the statuses or in any."""
    before = timezone.now() - timedelta(**delta)
    return sum(sum(retention.prune(Database(), status, before, batch_size=batch_size)) for status in statuses or CLOSED)


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

    assert prune("failed", "terminated", hours=1) == 2
    assert [row.name for row in WorkflowInstance.objects.all()] == [greet.name]


def test_prune_works_in_bounded_batches(worker: Worker) -> None:
    for handle in greet.start_many([("x",)] * 35):
        handle.result(timeout=20)

    with counted_deletes(WorkflowInstance._meta.db_table) as deletes:
        assert prune(batch_size=10, hours=-1) == 35

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


def test_prune_leaves_out_what_others_hold_locked(worker: Worker) -> None:
    skip_without_row_locks()
    handles = greet.start_many([("x",)] * 6)
    for handle in handles:
        handle.result(timeout=10)
    with transaction.atomic():
        first = WorkflowInstance.objects.order_by("closed_at", "id")[:2]
        # One by one: MariaDB would lock every row that it sorts.
        held = [WorkflowInstance.objects.select_for_update().get(pk=row.pk) for row in first]
        assert in_threads(lambda: prune(batch_size=2, hours=-1)) == [4]
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


def test_updates_go_with_the_execution_that_answered_them(worker: Worker) -> None:
    """Otherwise an instance that continues as new for ever would keep the answers of all its life."""
    handle = Cart.using(instance_id="cart").start("Ada")
    other = Cart.using(instance_id="other").start("Bea")
    other.update(Cart.count)
    updates = [handle.start_update(Cart.add, "book")]
    updates[0].result(timeout=10)
    updates.append(handle.start_update(Cart.begin_again))
    with pytest.raises(UpdateNotAnswered):
        updates[1].result(timeout=10)
    updates.append(handle.start_update(Cart.add, "pen"))
    updates[2].result(timeout=10)
    waiting = handle.start_update(Cart.never)
    eventually(lambda: waiting.status == "accepted")

    assert prune("continued_as_new", hours=-1) == 1

    kept = {updates[2].update_id, waiting.update_id}
    assert set(WorkflowUpdate.objects.filter(chain_id=handle.describe().chain).values_list("pk", flat=True)) == kept
    assert WorkflowUpdate.objects.count() == 3
    assert updates[2].result().items == ["book", "pen"]
    handle.terminate()
    other.terminate()


def test_prune_of_the_last_status_takes_what_belongs_to_the_chain(cache_size: int) -> None:
    """Its earlier executions may stay: another status, another age."""
    handle = continued_then_waiting.start(1)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: WorkflowInstance.objects.count() == 2 and not InboxEvent.objects.exists())
    handle.signal(wake, "too late")
    handle.terminate()
    WorkflowUpdate.objects.create(
        update_id="a",
        chain_id=handle.describe().chain,
        name="change",
        input="1",
        status="completed",
        answered_at=timezone.now(),
    )

    assert prune("terminated", hours=-1) == 1
    assert set(rows_left()) == {"WorkflowInstance", "HistoryEvent"}
    assert prune("continued_as_new", hours=-1) == 1
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


@override_settings(DJANGO_WORKFLOWS={"RETENTION": {"completed": 0}})
def test_worker_prunes_for_a_short_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turns of its thread wait meanwhile: it goes on at its next look."""
    monkeypatch.setattr(lease, "_PRUNE_SECONDS", 0)
    monkeypatch.setattr(retention, "MOST_EVENTS", 8)  # a greeting has four
    with override_settings(DJANGO_WORKFLOWS={}), running_worker():
        for handle in greet.start_many([("x",)] * 5):
            handle.result(timeout=20)
    database = Database()
    clock = DatabaseClock()
    clock.synchronise(database)
    upkeep = lease.Upkeep(database, clock, 0, timedelta(seconds=30), announce=lambda: None)
    lengths = []
    while rows_left():
        upkeep.prune()
        lengths.append(WorkflowInstance.objects.count())
    assert lengths == [3, 1, 0]


@override_settings(DJANGO_WORKFLOWS={"RETENTION": {"continued_as_new": 0}})
def test_hundreds_of_rounds_keep_the_tables_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_PRUNE_INTERVAL", 0.05)
    most = 0
    handle = chain.start(400)
    with running_worker():

        def is_over() -> bool:
            nonlocal most
            most = max(most, WorkflowInstance.objects.count())
            return handle.status is InstanceStatus.COMPLETED

        eventually(is_over, timeout=120)
        eventually(lambda: rows_left() == {"WorkflowInstance": 1, "HistoryEvent": 2})
    assert handle.result() == 0
    assert most < 200

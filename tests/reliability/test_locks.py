"""Locks of the application: transactions held open for seconds, deadlocks, and rows that a turn waits for in vain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection, transaction

from django_workflows import InstanceStatus, WorkflowHandle
from django_workflows.models import ActivityTask, OpenInstance, WorkflowInstance
from tests.conformance.waiting import assert_tables_consistent, eventually, in_threads, waiting_for_locks
from tests.conformance.workflows import collect, count, hold, word
from tests.testapp.models import Effect

from .logs import assert_outages_are_told, said
from .processes import worker_processes

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="there is one writer at a time"),
]

HELD = 2.5  # seconds: longer than a turn waits for any lock
REASONS = {
    "deadlock": "deadlock detected|Deadlock found",
    "lock timeout": "canceling statement due to lock timeout|Lock wait timeout exceeded",
}


def test_transactions_open_for_seconds_delay_no_other_instance(tmp_path: Path) -> None:
    """Whatever they are about, workers do not wait for a lock even once: it would show in the log."""
    log = tmp_path / "log"
    names = ("signalled", "cancelled", "terminated", "replaced", "removed")
    with worker_processes(1, lease=2.0, log=log) as fleet:
        signalled, cancelled, terminated, replaced, removed = (
            collect.using(instance_id=name).start(0 if name == "removed" else 1) for name in names
        )
        removed.result(timeout=60)
        for handle in (signalled, cancelled, terminated, replaced):
            eventually(handle.history, 60)
        with transaction.atomic():
            collect.using(instance_id="started").start(0)
            signalled.signal(word, "x")
            cancelled.cancel()
            terminated.terminate()
            collect.using(instance_id="replaced", on_conflict="terminate_existing").start(0)
            removed.remove()
            # Now the worker wants to step the instances that are locked, too.
            in_threads(lambda: [handle.signal(word, "too late") for handle in (terminated, replaced)])
            [finished] = in_threads(work_meanwhile)
            assert isinstance(finished, int) and finished >= 3, finished
        assert signalled.result(timeout=60) == ["x"]
        assert collect.handle("started").result(timeout=60) == []
        assert collect.handle("replaced").result(timeout=60) == []
        eventually(lambda: cancelled.status is InstanceStatus.CANCELLED, 60)
        assert fleet.stop() == [0]
    assert terminated.status is InstanceStatus.TERMINATED
    assert not WorkflowInstance.objects.filter(instance_id="removed").exists()
    assert not said(log, "WARNING") and not said(log, "ERROR")
    assert_tables_consistent()


def work_meanwhile() -> int:
    """Run other instances, one after the other, for as long as the transaction is to be held; return how many."""
    ends, number = time.monotonic() + HELD, 0
    while time.monotonic() < ends:
        count.start(f"other {number}", 2).result(timeout=60)
        number += 1
    return number


@contextmanager
def task_locked(handle: WorkflowHandle[int]) -> Iterator[None]:
    """Hold the row of an instance's activity task, for which its turn waits once the activity has returned.

    No code of the package does that to a task that a worker runs, but people with a database shell do.
    """
    with transaction.atomic():
        # InnoDB ends the transaction that has written less.
        Effect.objects.bulk_create([Effect(key="ballast") for _ in range(500)])
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL deadlock_timeout = '1h'")  # whoever looks first, is ended
        ActivityTask.objects.select_for_update().get(instance_id=handle.describe().pk)
        in_threads(lambda: Effect.objects.create(key="gate released"))
        eventually(lambda: waiting_for_locks() >= 1, 60)
        yield


@pytest.mark.parametrize("reason", REASONS)
def test_turn_that_the_database_ends_for_its_locks_is_repeated(reason: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {"PGOPTIONS": "-c deadlock_timeout=500ms" if reason == "deadlock" else ""}
    with worker_processes(1, lease=30, log=log, environment=environment) as fleet:
        handle, other = hold.start("gate"), collect.start(1)
        eventually(lambda: Effect.objects.filter(key="gate attempt").exists() and other.history(), 60)
        with task_locked(handle):
            other.signal(word, "x")
            if reason == "deadlock":
                OpenInstance.objects.select_for_update().get(pk=handle.describe().instance_key)
            else:
                eventually(lambda: "the database fails" in log.read_text(), 60)
        assert handle.result(timeout=60) == 1
        assert other.result(timeout=60) == ["x"]
        assert fleet.stop() == [0]
    assert Effect.objects.filter(key="gate attempt").count() == 1
    assert len(handle.history()) == 4
    assert_tables_consistent()
    assert_outages_are_told(log, REASONS[reason], most=2)

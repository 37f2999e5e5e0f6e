"""A worker frozen between the statements of a transaction and its COMMIT, for longer than its lease."""

from __future__ import annotations

import signal
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection

from django_workflows.models import HistoryEvent
from django_workflows.models import Worker as WorkerRow
from django_workflows.testing import running_worker
from tests.conformance.waiting import assert_tables_consistent, eventually
from tests.conformance.workflows import collect, count, word
from tests.testapp.models import Effect

from .logs import assert_outages_are_told, said
from .processes import worker_processes
from .proxy import At, proxy
from .workflows import mixed

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="nobody but the operating system could free the lock"),
]

LEASE = timedelta(seconds=1.5)
ENDED = "idle-in-transaction timeout|server closed the connection|gone away|Lost connection|was killed|inactivity"


class Freeze:
    """Stops a process at its first COMMIT of a transaction that mentions a table; the COMMIT is held back with it."""

    def __init__(self, process: subprocess.Popen[bytes], table: bytes) -> None:
        self.is_frozen = threading.Event()
        self._process, self._table = process, table
        self._thawed = threading.Event()

    def __call__(self, transaction: bytes) -> At:
        if self._table in transaction and not self.is_frozen.is_set():
            self._process.send_signal(signal.SIGSTOP)
            self.is_frozen.set()
            self._thawed.wait(timeout=60)
        return At.PASS

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._thawed.set()


def alive_workers() -> int:
    return WorkerRow.objects.filter(state=WorkerRow.State.ALIVE).count()


@pytest.mark.parametrize("cache_size", [pytest.param(1000, id="sticky"), pytest.param(0, id="cold")])
def test_turn_frozen_before_its_commit_is_ended_by_the_server_and_taken_over(tmp_path: Path, cache_size: int) -> None:
    log = tmp_path / "log"
    lease = LEASE.total_seconds()
    with (
        proxy() as line,
        worker_processes(1, lease=lease, cache_size=cache_size, log=log, environment=line.environment) as fleet,
    ):
        handle = collect.start(1)
        eventually(handle.history, 60)
        [row] = WorkerRow.objects.all()
        freeze = line.rule = Freeze(fleet.processes[0], b"historyevent")
        handle.signal(word, "x")
        eventually(freeze.is_frozen.is_set, 60)
        with running_worker(lease=LEASE, sticky_cache_size=cache_size):
            assert handle.result(timeout=60) == ["x"]
            row.refresh_from_db()
            assert row.state == WorkerRow.State.DEAD
            freeze.thaw()
            eventually(lambda: alive_workers() == 2, 60)
        assert count.start("later", 2).result(timeout=60) == 3
        assert fleet.stop() == [0]
    assert [event.type for event in handle.history()] == ["InstanceStarted", "SignalReceived", "InstanceCompleted"]
    assert_tables_consistent()
    assert_outages_are_told(log, ENDED, most=2)
    assert [message for message in said(log, "ERROR") if "was declared dead by others" in message]


def test_atomic_activity_frozen_before_its_commit_is_done_once_and_holds_up_no_other(tmp_path: Path) -> None:
    """It holds the lock on its own task, which nobody waits for: neither a sweep nor the turns of others."""
    log = tmp_path / "log"
    with (
        proxy() as line,
        worker_processes(1, lease=LEASE.total_seconds(), log=log, environment=line.environment) as fleet,
    ):
        freeze = line.rule = Freeze(fleet.processes[0], b"testapp_effect")
        frozen = mixed.start("frozen", 1)
        eventually(freeze.is_frozen.is_set, 60)
        [row] = WorkerRow.objects.all()
        with running_worker(lease=LEASE):
            others = mixed.start_many([(f"other {number}", 2) for number in range(10)])
            assert [handle.result(timeout=60) for handle in others] == [3] * 10
            eventually(lambda: WorkerRow.objects.get(pk=row.pk).state == WorkerRow.State.DEAD, 60)
            freeze.thaw()
            assert frozen.result(timeout=60) == 1
        assert fleet.stop() == [0]
    assert Effect.objects.filter(key="frozen-0").count() == 1
    assert HistoryEvent.objects.filter(instance_id=frozen.describe().pk).count() == 4
    assert_tables_consistent()
    said(log)

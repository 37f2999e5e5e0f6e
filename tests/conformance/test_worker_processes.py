"""Real worker processes: sharing a queue, frozen, killed, stopped, and with a wrong clock."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection

from django_workflows import InstanceStatus, WorkflowFailed
from django_workflows.models import ActivityTask, HistoryEvent, OpenInstance
from django_workflows.models import Worker as WorkerRow
from django_workflows.testing import running_worker
from tests.reliability.processes import worker_processes
from tests.testapp.models import Effect

from .waiting import eventually
from .workflows import collect, count, hold, hold_once, nap, retry, word

Process = subprocess.Popen[bytes]


def wait_for_workers(number: int) -> None:
    eventually(lambda: WorkerRow.objects.filter(state=WorkerRow.State.ALIVE).count() == number, timeout=30)


def attempts_of(key: str) -> list[int]:
    return list(Effect.objects.filter(key=f"{key} attempt").order_by("pk").values_list("value", flat=True))


def release(key: str) -> None:
    Effect.objects.create(key=f"{key} released")


def results_of_activities(instance: int) -> int:
    return HistoryEvent.objects.filter(instance_id=instance, type__in=["ActivityCompleted", "ActivityFailed"]).count()


@contextmanager
def frozen(process: Process) -> Iterator[None]:
    """Stop a process in its tracks, as a long garbage collection, a paused container or a lost network would."""
    process.send_signal(signal.SIGSTOP)
    try:
        while holds_the_only_write_lock(process):
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def holds_the_only_write_lock(process: Process) -> bool:
    """Tell whether SQLite's lock went to sleep with the process: nobody but the operating system could free it."""
    eventually(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    if connection.vendor != "sqlite":
        return False
    other = sqlite3.connect(connection.settings_dict["NAME"], timeout=0.5, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        other.close()
    return False


def test_processes_share_a_queue_and_record_every_result_once() -> None:
    with worker_processes(3, lease=30, arguments=("--threads", "2")) as fleet:
        wait_for_workers(3)
        handles = count.start_many([(f"instance {number}", 4) for number in range(40)])
        assert [handle.result(timeout=60) for handle in handles] == [10] * 40
        assert fleet.stop() == [0, 0, 0]
    effects = list(Effect.objects.values_list("key", "value"))
    assert len(effects) == len(set(effects)) == 40 * 8
    assert HistoryEvent.objects.filter(type="ActivityCompleted").count() == 40 * 8


def test_processes_under_one_parent_work_and_stop_together() -> None:
    with worker_processes(1, lease=30, arguments=("--processes", "2")) as fleet:
        wait_for_workers(2)
        assert count.start("x", 3).result(timeout=20) == 6
        assert len(set(WorkerRow.objects.values_list("process_id", flat=True))) == 2
        assert fleet.stop() == [0]
    assert not WorkerRow.objects.filter(state=WorkerRow.State.ALIVE).exists()


def test_burst_process_exits_by_itself() -> None:
    handle = count.start("x", 3)
    with worker_processes(1, lease=30, arguments=("--burst",)) as fleet:
        assert fleet.processes[0].wait(timeout=30) == 0
    assert handle.result(timeout=0) == 6


# Frozen


def test_frozen_worker_is_replaced_and_records_nothing_when_it_wakes_up(cache_size: int) -> None:
    """The others take its instances and its running activity; its own late result is discarded."""
    with worker_processes(1, lease=1.5, cache_size=cache_size) as fleet:
        waiting, held = collect.start(2), hold.start("gate")
        waiting.signal(word, "before")
        eventually(lambda: len(waiting.history()) == 2 and attempts_of("gate") == [1], timeout=30)
        [row] = WorkerRow.objects.all()

        with frozen(fleet.processes[0]), running_worker(lease=timedelta(seconds=1.5), sticky_cache_size=cache_size):
            eventually(lambda: attempts_of("gate") == [1, 2], timeout=20)
            waiting.signal(word, "after")
            assert waiting.result(timeout=10) == ["before", "after"]
            release("gate")
            assert held.result(timeout=10) == 2
            row.refresh_from_db()
            assert row.state == WorkerRow.State.DEAD

        # Awake again it finds itself dead, and goes on as a new worker.
        wait_for_workers(1)
        assert count.start("later", 2).result(timeout=20) == 3
        assert fleet.stop() == [0]
    assert results_of_activities(held.describe().pk) == 1
    assert WorkerRow.objects.filter(process_id=row.process_id).count() == 2


def test_worker_frozen_for_less_than_its_lease_goes_on_as_before() -> None:
    with worker_processes(1, lease=30) as fleet:
        handle = collect.start(2)
        handle.signal(word, "before")
        eventually(lambda: len(handle.history()) == 2, timeout=30)
        with frozen(fleet.processes[0]):
            handle.signal(word, "after")
        assert handle.result(timeout=10) == ["before", "after"]
        assert fleet.stop() == [0]
    assert WorkerRow.objects.count() == 1


# Killed


def test_killed_worker_is_replaced_within_its_lease() -> None:
    with worker_processes(1, lease=1.5) as fleet:
        held, once = hold.start("gate"), hold_once.start("once")
        waiting = collect.start(1)
        eventually(lambda: attempts_of("gate") == attempts_of("once") == [1] and waiting.history(), timeout=30)
        fleet.processes[0].kill()
        fleet.processes[0].wait()

        with running_worker(lease=timedelta(seconds=1.5)):
            eventually(lambda: attempts_of("gate") == [1, 2], timeout=20)
            release("gate")
            assert held.result(timeout=10) == 2
            with pytest.raises(WorkflowFailed, match=r"WorkerLost.*processes\.held.*no attempt is left"):
                once.result(timeout=10)
            waiting.signal(word, "still there")
            assert waiting.result(timeout=10) == ["still there"]
    assert attempts_of("once") == [1], "an activity of one permitted attempt is not run twice"


# Stopped


def takes_new_work() -> bool:
    """Tell whether the worker still claims instances, by starting one."""
    handle = collect.start(1)
    try:
        eventually(handle.history, timeout=1)
    except AssertionError:
        return False
    return True


def test_sigterm_lets_running_activities_finish_and_frees_the_rest() -> None:
    with worker_processes(1, lease=30, arguments=("--grace", "30")) as fleet:
        held, waiting = hold.start("gate"), collect.start(1)
        eventually(lambda: attempts_of("gate") == [1] and waiting.history(), timeout=30)
        fleet.processes[0].terminate()
        # It drains: what it does not need for its running activity is free.
        eventually(lambda: not takes_new_work())
        release("gate")
        assert fleet.processes[0].wait(timeout=20) == 0
    assert not OpenInstance.objects.filter(owner_id__isnull=False).exists()
    with running_worker():
        assert held.result(timeout=10) == 1, "the first attempt was not lost"
        waiting.signal(word, "x")
        assert waiting.result(timeout=10) == ["x"]


def test_activity_that_outlasts_the_grace_period_is_handed_to_others_at_once() -> None:
    with worker_processes(1, lease=60, arguments=("--grace", "0.2")) as fleet:
        held = hold.start("gate")
        eventually(lambda: attempts_of("gate") == [1], timeout=30)
        fleet.processes[0].terminate()
        assert fleet.processes[0].wait(timeout=20) == 0
    task = ActivityTask.objects.get()
    assert task.owner_id is None and task.available_at is not None
    release("gate")
    with running_worker():
        assert held.result(timeout=10) == 2


def test_second_signal_ends_the_process_at_once() -> None:
    with worker_processes(1, lease=1.5, arguments=("--grace", "60")) as fleet:
        held = hold.start("gate")
        eventually(lambda: attempts_of("gate") == [1], timeout=30)
        process = fleet.processes[0]
        process.terminate()
        eventually(lambda: process.terminate() or process.poll() is not None)
        assert process.returncode in (1, -signal.SIGTERM)
    release("gate")
    with running_worker(lease=timedelta(seconds=1.5)):
        assert held.result(timeout=20) == 2


# A wrong clock


@contextmanager
def skewed_worker(seconds: int, *, lease: float) -> Iterator[None]:
    environment = {**os.environ, "LEASE": str(lease), "STICKY_CACHE_SIZE": "0"}
    command = [sys.executable, "-m", "tests.conformance.skewed_worker", str(seconds)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("seconds", [300, -300])
def test_worker_whose_clock_is_off_keeps_leases_timers_and_back_offs_right(seconds: int) -> None:
    """The database's clock counts; this machine's only measures durations."""
    with skewed_worker(seconds, lease=1.5), worker_processes(1, lease=1.5, cache_size=0) as fleet:
        wait_for_workers(2)
        # Enough that both workers step and fire, cold, over several leases.
        naps = nap.start_many([(1.0, 3)] * 10)
        retries = retry.start_many([(f"retry {number}",) for number in range(6)])
        for handle in naps:
            took = handle.result(timeout=30)
            assert len(took) == 3
            assert all(0.99 <= duration < 5 for duration in took), took
        assert [handle.result(timeout=30) for handle in retries] == [2.0] * 6
        for handle in (*naps, *retries):
            row = handle.describe()
            assert row.status == InstanceStatus.COMPLETED and row.closed_at is not None
            times = [row.created_at, *(event.time for event in handle.history()), row.closed_at]
            assert times == sorted(times)
            assert (times[-1] - times[0]).total_seconds() < 30
        assert WorkerRow.objects.count() == 2
        assert set(WorkerRow.objects.values_list("state", flat=True)) == {WorkerRow.State.ALIVE}
        assert fleet.stop() == [0]


def test_only_worker_with_a_wrong_clock_fires_timers_in_time() -> None:
    with skewed_worker(-300, lease=1.5):
        [took] = nap.start(1.0, 1).result(timeout=20)
        assert 0.99 <= took < 5

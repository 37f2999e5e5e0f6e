"""Atomic activities: their writes and their result commit together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from django_workflows import RegistrationError, RetryPolicy, WorkflowFailed, activity, get_handle, workflow
from django_workflows.models import Worker as WorkerRow
from django_workflows.store import workers
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect

from .gates import note, open_gate, wait_at_gate, wait_for_notes
from .waiting import eventually

AT_ONCE = RetryPolicy(max_attempts=5, initial_interval=timedelta(0))
LEASE = timedelta(seconds=1)


def _write(key: str) -> None:
    Effect.objects.create(key=key, value=activity.info().attempt)


def _written(key: str) -> list[int]:
    return list(Effect.objects.filter(key=key).values_list("value", flat=True))


def _results(instance_id: str) -> list[object]:
    return [event.data["result"] for event in get_handle(instance_id).history() if event.type == "ActivityCompleted"]


@activity(name="atomic.write", atomic=True)
def write(key: str) -> list[object]:
    _write(key)
    return [Effect.objects.filter(key=key).count(), len(_results(key))]


@workflow(name="atomic.write_once")
async def write_once() -> list[object]:
    return await write(workflow.info().instance_id)


def test_writes_and_result_are_committed(worker: Worker) -> None:
    handle = write_once.start()
    assert handle.result(timeout=10) == [1, 0]
    assert _written(handle.instance_id) == [1]


@activity(name="atomic.write_and_fail", atomic=True, retry=AT_ONCE)
def write_and_fail(key: str, good_attempt: int) -> int:
    _write(key)
    if activity.info().attempt < good_attempt:
        raise ValueError(f"attempt {activity.info().attempt}")
    return activity.info().attempt


@workflow(name="atomic.fail_some_times")
async def fail_some_times(good_attempt: int) -> int:
    return await write_and_fail(workflow.info().instance_id, good_attempt)


def test_an_exception_rolls_the_writes_back(worker: Worker) -> None:
    handle = fail_some_times.start(3)
    assert handle.result(timeout=10) == 3
    assert _written(handle.instance_id) == [3]


def test_the_writes_of_a_failed_activity_are_gone(worker: Worker) -> None:
    handle = fail_some_times.start(99)
    with pytest.raises(WorkflowFailed, match="attempt 5"):
        handle.result(timeout=10)
    assert _written(handle.instance_id) == []


@activity(name="atomic.return_nonsense", atomic=True, retry=RetryPolicy(max_attempts=1))
def return_nonsense(key: str) -> object:
    _write(key)
    return object()


@workflow(name="atomic.receive_nonsense")
async def receive_nonsense() -> None:
    await return_nonsense(workflow.info().instance_id)


def test_a_result_that_cannot_be_stored_rolls_the_writes_back(worker: Worker) -> None:
    handle = receive_nonsense.start()
    with pytest.raises(WorkflowFailed, match=r"result of atomic\.return_nonsense"):
        handle.result(timeout=10)
    assert _written(handle.instance_id) == []


# Attempts that nobody wants any more when they come to their commit. On SQLite they must not write before they wait,
# because the one write lock would keep everybody else from working.


@activity(name="atomic.wait_and_write", atomic=True, retry=AT_ONCE)
def wait_and_write(key: str) -> int:
    attempt = activity.info().attempt
    note(key, f"attempt {attempt} started")
    if attempt == 1:
        wait_at_gate(key)
    _write(key)
    note(key, f"attempt {attempt} wrote")
    return attempt


@workflow(name="atomic.wait_for_write")
async def wait_for_write(key: str, timeout: float | None) -> int:
    limit = None if timeout is None else timedelta(seconds=timeout)
    return await wait_and_write.using(start_to_close_timeout=limit)(key)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    return name


@pytest.fixture
def transactions_overlap() -> None:
    if Database().connection.vendor == "sqlite":
        pytest.skip("SQLite has one write transaction at a time: nobody can take an attempt away during one")


@pytest.mark.usefixtures("transactions_overlap")
def test_a_timed_out_attempt_writes_nothing(worker: Worker, key: str) -> None:
    handle = wait_for_write.using(instance_id=key).start(key, 0.1)
    assert handle.result(timeout=10) == 2
    open_gate(key)
    assert "attempt 1 wrote" in wait_for_notes(key, 4)
    write_once.start().result(timeout=10)
    assert _written(key) == [2]
    assert _results(key) == [2]


@pytest.mark.usefixtures("transactions_overlap")
def test_a_cancelled_attempt_writes_nothing(worker: Worker, key: str) -> None:
    handle = wait_for_write.using(instance_id=key).start(key, None)
    wait_for_notes(key)
    handle.cancel()
    eventually(lambda: handle.status.is_closed)
    open_gate(key)
    wait_for_notes(key, 2)
    write_once.start().result(timeout=10)
    assert _written(key) == []


@pytest.mark.usefixtures("transactions_overlap")
def test_an_attempt_of_a_lost_lease_writes_nothing(consistent_tables: None, cache_size: int, key: str) -> None:
    with running_worker(sticky_cache_size=cache_size) as running:
        handle = wait_for_write.using(instance_id=key).start(key, None)
        wait_for_notes(key)
        workers.retire(Database(), running.id)
        workers.hand_back(Database())
        assert handle.result(timeout=20) == 2
        open_gate(key)
        wait_for_notes(key, 4)
        write_once.start().result(timeout=10)
        assert _written(key) == [2]


# A process that dies between the body and the commit


@activity(name="atomic.die_once", atomic=True, retry=AT_ONCE)
def die_once(key: str, flag: str) -> int:
    _write(key)
    try:
        Path(flag).touch(exist_ok=False)
    except FileExistsError:
        return activity.info().attempt
    os._exit(9)


@workflow(name="atomic.survive")
async def survive(key: str, flag: str) -> int:
    return await die_once(key, flag)


_COMMAND = (
    "import django; django.setup(); import tests.conformance.test_atomic_activities; "
    "from django.core.management import call_command; call_command('runworkflowworker', verbosity=0)"
)


@contextmanager
def worker_process(cache_size: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "LEASE": str(LEASE.total_seconds()),
        "STICKY_CACHE_SIZE": str(cache_size),
    }
    process = subprocess.Popen([sys.executable, "-c", _COMMAND], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_process_that_dies_before_the_commit_leaves_no_effect(cache_size: int, tmp_path: Path) -> None:
    flag = tmp_path / "died"
    with worker_process(cache_size) as process:
        handle = survive.start("survived", str(flag))
        assert process.wait(timeout=30) == 9
    assert flag.exists()
    assert _written("survived") == []
    assert not handle.status.is_closed
    with running_worker(lease=LEASE, sticky_cache_size=cache_size):
        assert handle.result(timeout=30) == 2
    assert _written("survived") == [2]
    assert _results(handle.instance_id) == [2]


@activity(name="atomic.be_frozen", retry=AT_ONCE)
def be_frozen(key: str) -> list[int]:
    attempt = activity.info().attempt
    if attempt == 1:
        Effect.objects.create(key=key, value=os.getpid())
        eventually(lambda: _written(f"{key} thawed"), timeout=60)
        Effect.objects.create(key=f"{key} ended")
    return [attempt, os.getpid()]


@workflow(name="atomic.freeze")
async def freeze(key: str) -> list[int]:
    return await be_frozen(key)


def test_a_frozen_worker_loses_its_activity_to_another(cache_size: int) -> None:
    """The real thing: a process that stops renewing its lease, and comes back when its work is done by another."""
    with worker_process(cache_size) as process:
        handle = freeze.start("frozen")
        eventually(lambda: _written("frozen"), timeout=30)
        process.send_signal(signal.SIGSTOP)
        with running_worker(lease=LEASE, sticky_cache_size=cache_size):
            assert handle.result(timeout=30) == [2, os.getpid()]
            process.send_signal(signal.SIGCONT)
            Effect.objects.create(key="frozen thawed", value=1)
            eventually(lambda: WorkerRow.objects.filter(process_id=process.pid, state="alive").exists(), timeout=30)
            eventually(lambda: _written("frozen ended"), timeout=30)
    assert _results(handle.instance_id) == [[2, os.getpid()]]


# Registration


def test_another_database_is_refused_at_registration() -> None:
    with pytest.raises(RegistrationError, match=r"atomic\.elsewhere.*'default'.*found 'other'"):

        @activity(name="atomic.elsewhere", atomic="other")
        def elsewhere() -> None: ...


def test_an_async_function_is_refused_at_registration() -> None:
    with pytest.raises(RegistrationError, match=r"atomic\.asynchronous.*plain function"):

        @activity(name="atomic.asynchronous", atomic=True)
        async def asynchronous() -> None: ...

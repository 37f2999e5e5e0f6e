"""SQLite's own troubles: a full disk, a file that cannot be written, a lock that others keep."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.backends.signals import connection_created
from django.utils import timezone

from django_workflows.models import OpenInstance
from django_workflows.models import Worker as WorkerRow
from django_workflows.testing import running_worker
from tests.conformance.waiting import assert_tables_consistent, eventually
from tests.testapp.models import Effect

from .logs import assert_outages_are_told, said
from .processes import worker_processes
from .workflows import mixed

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="a file that this process could fill or lock"),
]


def assert_done_once(instances: int, steps: int) -> None:
    assert not OpenInstance.objects.exists()
    keys = list(Effect.objects.values_list("key", flat=True))
    assert len(keys) == len(set(keys)) == instances * steps // 2
    assert_tables_consistent()


# A full disk


def free_ballast() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM ballast")


@contextmanager
def ballast(pages: int) -> Iterator[int]:
    """Make the file larger for the length of the block; yield the number of its pages."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")  # no page is free
        cursor.execute("CREATE TABLE ballast AS SELECT zeroblob(4000 * %s) AS content", [pages])
        cursor.execute("PRAGMA page_count")
        (count,) = cursor.fetchone()
    try:
        yield count
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE ballast")


def test_worker_on_a_full_disk_waits_for_room(tmp_path: Path) -> None:
    """A connection that may have no more pages gets the error of a full disk."""
    log = tmp_path / "log"
    with ballast(2000) as count:
        environment = {"SQLITE_PRAGMA": f"PRAGMA max_page_count={count};"}
        with worker_processes(1, lease=1.5, log=log, environment=environment) as fleet:
            handles = mixed.start_many([(f"w{number}", 6) for number in range(10)])
            eventually(lambda: "the database fails" in log.read_text(), 60)
            eventually(lambda: not WorkerRow.objects.filter(lease_until__gt=timezone.now()).exists(), 60)
            assert fleet.processes[0].poll() is None
            free_ballast()
            assert [handle.result(timeout=60) for handle in handles] == [15] * 10
            assert fleet.stop() == [0]
    assert_outages_are_told(log, "database or disk is full", most=5)
    assert WorkerRow.objects.count() == 1
    assert_done_once(10, 6)


# A file that cannot be written


class WriteProtection:
    """Makes all connections of other threads of this process read only while it is on."""

    def __init__(self) -> None:
        self.is_on = False

    def watch(self, connection: Any, **kwargs: Any) -> None:
        if threading.current_thread() is not threading.main_thread() and self not in connection.execute_wrappers:
            connection.execute_wrappers.append(self)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        # By the thread of the connection: another one might close it meanwhile.
        context["connection"].connection.execute(f"PRAGMA query_only={int(self.is_on)}")
        return execute(sql, params, many, context)


@pytest.fixture
def protection() -> Iterator[WriteProtection]:
    protection = WriteProtection()
    connection_created.connect(protection.watch)
    yield protection
    connection_created.disconnect(protection.watch)


def test_worker_on_a_read_only_file_waits_until_it_can_write(
    protection: WriteProtection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_workflows.worker")
    with running_worker(lease=timedelta(seconds=1.5)) as worker:
        first = worker.id
        handles = mixed.start_many([(f"w{number}", 6) for number in range(10)])
        eventually(Effect.objects.exists)
        protection.is_on = True
        eventually(lambda: any("the database fails" in record.message for record in caplog.records), 60)
        eventually(lambda: not WorkerRow.objects.filter(lease_until__gt=timezone.now()).exists(), 60)
        protection.is_on = False
        assert [handle.result(timeout=60) for handle in handles] == [15] * 10
        assert worker.id == first
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("attempt to write a readonly database" in message for message in warnings)
    # Besides, an activity may have been the first to meet it.
    assert sum("the database fails" in message for message in warnings) == 1 and len(warnings) <= 2
    assert sum("the database answers again" in record.message for record in caplog.records) == 1
    assert not any(record.exc_info for record in caplog.records)
    assert_done_once(10, 6)


# A lock that others keep


@contextmanager
def lock_held() -> Iterator[None]:
    other = sqlite3.connect(connection.settings_dict["NAME"], timeout=60, isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def lock_held_in_bursts(held: float, free: float) -> Iterator[None]:
    """Hold the one write lock again and again, as a batch job does, or anybody on a slow disk."""
    ended = threading.Event()

    def hold() -> None:
        while not ended.wait(free):
            with lock_held():
                ended.wait(held)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_worker_beside_a_greedy_writer_goes_on_without_a_word(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with worker_processes(1, lease=5.0, log=log) as fleet:
        with lock_held_in_bursts(0.1, 0.02):
            handles = mixed.start_many([(f"w{number}", 4) for number in range(5)])
            assert [handle.result(timeout=60) for handle in handles] == [8] * 5
        assert fleet.stop() == [0]
    assert not said(log, "WARNING") and not said(log, "ERROR")
    assert_done_once(5, 4)


def test_worker_whose_writes_time_out_says_so_in_few_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with worker_processes(1, lease=3.0, log=log, environment={"SQLITE_TIMEOUT": "0.1"}) as fleet:
        handles = mixed.start_many([(f"w{number}", 6) for number in range(5)])
        eventually(Effect.objects.exists, 60)
        with lock_held():
            eventually(lambda: "the database fails" in log.read_text(), 60)
        assert [handle.result(timeout=60) for handle in handles] == [15] * 5
        assert fleet.stop() == [0]
    assert_outages_are_told(log, "database is locked", most=3)
    assert_done_once(5, 6)

"""What a worker asks the database when nothing has happened for a while, and that it still finds everything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_workflows import activity
from django_workflows.models import ActivityTask, InboxEvent, OpenInstance, Timer
from django_workflows.store import claims
from django_workflows.store.database import Database
from django_workflows.worker.activities import ActivityPool
from django_workflows.worker.clock import DatabaseClock
from django_workflows.worker.finder import Finder, Findings
from django_workflows.worker.held import StickyCache

from .store_support import claim, note, register, scheduled_task, start


@activity(name="polling.nothing")
def nothing() -> None: ...


@pytest.fixture
def worker_id() -> int:
    return register()


@pytest.fixture
def finder(worker_id: int) -> Finder:
    """Return a finder whose last poll found nothing."""
    database, clock = Database(), DatabaseClock()
    clock.synchronise(database)
    pool = ActivityPool(database, worker_id, 4, lambda result: None)
    finder = Finder(database, clock, worker_id, ["default"], StickyCache(10), pool, workflows=True)
    assert not poll(finder)
    return finder


def poll(finder: Finder) -> Findings:
    return finder.poll(room=10)


def a_start(worker_id: int) -> None:
    start()


def a_message_to_an_idle_instance(worker_id: int) -> None:
    (handle,) = start()
    claim(worker_id, handle)
    OpenInstance.objects.update(owner_id=None)
    handle.signal(note, 1)


def a_due_timer(worker_id: int) -> None:
    (handle,) = start()
    [loaded] = claim(worker_id, handle)
    past = Database().now() - timedelta(seconds=1)
    Timer.objects.create(
        instance_id=loaded.chain.instance, command=1, chain_id=loaded.chain.chain, fire_at=past, wake_at=past
    )
    OpenInstance.objects.update(owner_id=None)
    InboxEvent.objects.all().delete()


def a_ready_task(worker_id: int) -> None:
    scheduled_task(worker_id)
    ActivityTask.objects.update(name="polling.nothing")


@pytest.mark.parametrize("happens", [a_start, a_message_to_an_idle_instance, a_due_timer, a_ready_task])
def test_a_worker_that_found_nothing_finds_what_happens_then(
    finder: Finder, worker_id: int, happens: Callable[[int], None]
) -> None:
    happens(worker_id)
    assert poll(finder)


def test_a_worker_that_found_nothing_asks_one_question_until_there_is_a_hint(finder: Finder) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert not poll(finder)
        return len(queries)

    assert [count(), count()] == [1, 1]
    finder.hint()
    assert count() > 1


def test_the_one_question_does_not_scan_what_a_herd_has_left() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("PostgreSQL alone chooses by statistics of a table that was full a moment ago")
    database, table = Database(), InboxEvent._meta.db_table
    with transaction.atomic(), connection.cursor() as cursor:  # in one transaction, out of reach of autovacuum
        cursor.execute(
            f"INSERT INTO {table} (chain_id, type, data, queue, created_at) "
            "SELECT n, 'SignalReceived', '{}', 'default', now() FROM generate_series(1, 20000) n"
        )
        cursor.execute(f"ANALYZE {table}")
        cursor.execute(f"DELETE FROM {table}")
        with CaptureQueriesContext(connection) as queries:
            assert not claims.may_find(database, ["default"], 0, database.now(), workflows=True, activities=False)
        cursor.execute("EXPLAIN " + queries[-1]["sql"].replace("%", "%%"))
        plan = "\n".join(line for (line,) in cursor.fetchall())
        transaction.set_rollback(True)
    assert f"Seq Scan on {table}" not in plan, plan

"""Waiting for conditions, and what must be true of the tables whenever no worker runs."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection, connections

from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    OpenInstance,
    Timer,
    WorkflowInstance,
    WorkflowUpdate,
)
from django_workflows.store import claims, leftovers
from django_workflows.store.database import Database

T = TypeVar("T")

# One outcome per command, whatever was delivered twice.
_OUTCOMES = ("ActivityCompleted", "ActivityFailed", "ChildCompleted", "ChildFailed", "TimerFired", "TimerCancelled")


def eventually(predicate: Callable[[], T | None], timeout: float = 10) -> T:
    """Return the first true value of `predicate`; fails with its last value when there is none in time."""
    ends = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() >= ends:
            raise AssertionError(f"not true within {timeout:g} s, the last value was {value!r}")
        time.sleep(0.01)
    return value


def assert_tables_consistent() -> None:
    collect_leftovers()
    instances = {row.pk: row for row in WorkflowInstance.objects.all()}
    opened = {row.instance_id: row for row in OpenInstance.objects.all()}
    lengths = _history_lengths()
    assert set(lengths) <= set(instances), "history without an instance"
    for pk, instance in instances.items():
        is_open = instance.closed_at is None
        assert (pk in opened) is is_open, f"{instance}: {instance.status}, but open row: {pk in opened}"
        length = opened[pk].history_length if is_open else instance.history_length
        assert lengths.get(pk, 0) == length, f"{instance}: {lengths.get(pk, 0)} events, but the row says {length}"
    assert set(opened) <= set(instances), "open row without an instance"
    for pk, row in opened.items():
        assert (row.open_key, row.chain_id) == (instances[pk].instance_key, instances[pk].chain)
    for task in ActivityTask.objects.all():
        assert task.instance_id in opened, f"activity task {task.name} of an instance that is not open"
    for timer in Timer.objects.all():
        assert timer.instance_id in opened, f"timer {timer.command} of an instance that is not open"
    open_chains, chains = {row.chain_id for row in opened.values()}, {row.chain for row in instances.values()}
    _check_inbox(open_chains, chains)
    _check_updates(open_chains, chains)


def collect_leftovers() -> None:
    """Do what a worker does when it meets leftovers."""
    database = Database()
    queues = InboxEvent.objects.filter(queue__isnull=False).values_list("queue", flat=True).distinct()
    for queue in list(queues):
        rows = [row for row in claims.poll_inbox(database, [queue], 0) if row.open_key is None]
        leftovers.collect_inbox(database, rows)
    while leftovers.sweep(database):
        pass


def _history_lengths() -> dict[int, int]:
    """Return the length of every history, after a look at its numbers and outcomes."""
    sequences: dict[int, list[int]] = defaultdict(list)
    outcomes: Counter[tuple[int, object]] = Counter()
    for event in HistoryEvent.objects.order_by("instance_id", "sequence"):
        sequences[event.instance_id].append(event.sequence)
        if event.type in _OUTCOMES:
            outcomes[event.instance_id, json.loads(event.data)["command"]] += 1
    for instance, found in sequences.items():
        assert found == list(range(1, len(found) + 1)), f"history of instance {instance} is not 1..n: {found}"
    doubled = {key: count for key, count in outcomes.items() if count > 1}
    assert not doubled, f"commands with more than one outcome: {doubled}"
    return {instance: len(found) for instance, found in sequences.items()}


def _check_inbox(open_chains: set[int], chains: set[int]) -> None:
    for row in InboxEvent.objects.all():
        assert row.chain_id in chains, f"inbox row {row.type} of an instance that does not exist"
        # A signal that came too late stays, to be seen; anything else would be garbage.
        assert row.chain_id in open_chains or row.type == "SignalReceived", f"inbox row {row.type} of a closed instance"


def _check_updates(open_chains: set[int], chains: set[int]) -> None:
    for row in WorkflowUpdate.objects.all():
        assert row.chain_id in chains, f"update {row.name} of an instance that does not exist"
        answered = WorkflowUpdate.Status(row.status).is_answered
        assert answered or row.chain_id in open_chains, f"update {row.name} of a closed instance is {row.status}"
        assert answered is (row.answered_at is not None), f"update {row.name} is {row.status}, but {row.answered_at}"


def in_threads(*calls: Callable[[], T]) -> list[T | BaseException]:
    """Make the calls at the same time, each on a connection of its own; return their results or errors in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | BaseException:
        try:
            barrier.wait(timeout=10)
            return call()
        except BaseException as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def waiting_for_locks() -> int:
    """Return how many other sessions on this database wait for a lock."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return int(cursor.fetchone()[0])
        # Not from INNODB_TRX, which stays as it was while somebody asks often.
        cursor.execute("SHOW ENGINE INNODB STATUS")
        waiting = set(re.findall(r"^LOCK WAIT.*?thread id (\d+)", cursor.fetchone()[2], re.MULTILINE | re.DOTALL))
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = database()")
        return len(waiting & {str(session) for (session,) in cursor.fetchall()})

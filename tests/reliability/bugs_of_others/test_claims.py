"""Claims and leases: work that others left behind, ran twice or took from the living."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError

from django_workflows import InstanceStatus
from django_workflows.models import ActivityTask, OpenInstance
from django_workflows.models import Worker as WorkerRow
from django_workflows.store import claims, workers
from django_workflows.store.database import Database
from django_workflows.store.work import ClaimedTask, Retry, TaskKey, TurnBatch
from django_workflows.testing import running_worker
from django_workflows.worker.loop import TurnLoop
from django_workflows.worker.worker import Worker
from tests.conformance.gates import open_gate
from tests.conformance.store_support import (
    claim,
    commit,
    elsewhere,
    register,
    right_behind_the_read_of,
    scheduled_task,
    skip_without_row_locks,
)
from tests.conformance.waiting import eventually

from .support import collect, hold, numbers, parent, tasks_of, word

SHORT = timedelta(seconds=1)
_TASK = ActivityTask._meta.db_table


def owners(tasks: list[ActivityTask]) -> list[int | None]:
    return [ActivityTask.objects.get(pk=task.pk).owner_id for task in tasks]


# Taking over what a dead worker held


def test_work_is_taken_over_though_a_worker_of_the_same_name_lives(cache_size: int) -> None:
    """DBOS #804, Oban #862: ownership by a configured name strands what the last process of that name held."""
    handle = collect.start(1)
    dead = register(lease=timedelta(seconds=-1))
    claim(dead, handle)
    with running_worker(lease=SHORT, sticky_cache_size=cache_size) as worker:
        names = WorkerRow.objects.filter(pk__in=[dead, worker.id]).values_list("host", "process_id")
        assert len(set(names)) == 1
        handle.signal(word, "taken over")
        assert handle.result(timeout=60) == ["taken over"]


def test_a_database_error_while_work_is_handed_back_loses_none_of_it(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DBOS #716: a transient error inside the one-shot loop of the recovery dropped workflows for good."""
    handle = collect.start(1)
    dead = register()
    claim(dead, handle)
    workers.retire(Database(), dead)
    hand_back, errors = workers.hand_back, [OperationalError("the server closed the connection")]

    def failing_once(database: Database) -> int:
        if errors:
            raise errors.pop()
        return hand_back(database)

    monkeypatch.setattr(workers, "hand_back", failing_once)
    with running_worker(sticky_cache_size=cache_size):
        handle.signal(word, "taken over")
        assert handle.result(timeout=60) == ["taken over"]
    assert not errors


def test_what_a_dead_worker_ran_takes_no_place_from_the_living() -> None:
    """DBOS #805: a recovered workflow blocked its queue, whose concurrency was 1."""
    dead = register()
    [task] = tasks_of(dead, 1)
    workers.retire(Database(), dead)
    with running_worker(threads=1):
        assert [handle.result(timeout=60) for handle in numbers.start_many([(n,) for n in range(4)])] == [0, 1, 2, 3]
        eventually(lambda: not ActivityTask.objects.filter(pk=task.pk).exists())


def test_children_that_wait_when_their_worker_stops_are_run_by_the_next(cache_size: int) -> None:
    """DBOS TS #706: limits and a restart left children queued."""
    handle = parent.start(12)
    with running_worker(activities=False, sticky_cache_size=cache_size):
        eventually(ActivityTask.objects.exists)
    with running_worker(threads=1, sticky_cache_size=cache_size):
        assert handle.result(timeout=60) == sum(range(12))


def test_all_that_a_dead_worker_held_is_handed_back_at_once() -> None:
    """River #1258: thousands of jobs stuck running, which the rescuer freed a page at a time."""
    dead = register()
    tasks = tasks_of(dead, 1200)
    OpenInstance.objects.update(owner_id=dead)
    workers.retire(Database(), dead)

    assert workers.hand_back(Database()) == 2 * len(tasks)

    assert not ActivityTask.objects.exclude(owner_id=None).exists()
    assert not OpenInstance.objects.exclude(owner_id=None).exists()


def test_rows_that_are_locked_keep_no_others_from_being_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """River #1318: a page of what could not be rescued starved what was behind it."""
    skip_without_row_locks()
    monkeypatch.setattr(workers, "_PAGE", 2)
    dead = register()
    tasks = tasks_of(dead, 6)
    workers.retire(Database(), dead)
    first = list(ActivityTask.objects.filter(owner_id=dead)[:3])
    with elsewhere(lambda: [ActivityTask.objects.select_for_update().get(pk=task.pk) for task in first]):
        workers.hand_back(Database())
        assert owners(tasks).count(None) == 3
    workers.hand_back(Database())
    assert owners(tasks) == [None] * 6


def test_work_of_the_dead_is_found_among_that_of_the_living_in_every_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """go-workflows, Redis: abandoned tasks behind ten live ones, or in any queue but the first, were never found."""
    monkeypatch.setattr(workers, "_PAGE", 2)
    alive, dead = register(), register()
    living = tasks_of(alive, 12)
    abandoned = [tasks_of(dead, 1, queue=queue)[0] for queue in ("first", "second", "_system_")]
    workers.retire(Database(), dead)

    assert workers.hand_back(Database()) == 3

    assert owners(abandoned) == [None] * 3
    assert owners(living) == [alive] * 12


@pytest.mark.parametrize("became", ["claimed by the living", "completed"])
def test_what_changed_hands_behind_the_look_of_the_rescuer_is_left_alone(became: str) -> None:
    """River #1302: the rescuer overwrote jobs that were completed or claimed again between its read and its write."""
    dead, alive = register(), register()
    [task] = tasks_of(dead, 1)
    workers.retire(Database(), dead)

    def change_hands() -> None:
        row = ActivityTask.objects.filter(pk=task.pk)
        row.delete() if became == "completed" else row.update(owner_id=alive, attempt=2)

    with right_behind_the_read_of(_TASK, change_hands):
        assert workers.hand_back(Database()) == 0

    left = ActivityTask.objects.filter(pk=task.pk).values_list("owner_id", "attempt", "available_at")
    assert list(left) == ([] if became == "completed" else [(alive, 2, None)])


def test_work_of_a_kind_unknown_to_the_rescuer_is_kept_for_others(cache_size: int) -> None:
    """River #1105: the rescuer discarded jobs of kinds that it did not know; Absurd workers failed such runs."""
    dead = register()
    [task] = tasks_of(dead, 1, name="others.of_a_newer_version")
    workers.retire(Database(), dead)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: owners([task]) == [None])
        assert numbers.start(7).result(timeout=60) == 7
    [row] = ActivityTask.objects.all()
    assert (row.attempt, row.crashes, row.last_failure) == (1, 1, None)
    assert row.available_at is not None


# Taking what is free, and no more


def test_a_worker_that_starts_runs_nothing_that_runs_already(cache_size: int) -> None:
    """DBOS Java #491: the recovery at launch ran a workflow again that was running in the process."""
    with running_worker(sticky_cache_size=cache_size):
        handle = hold.start(gate := f"starts {cache_size}")
        eventually(lambda: ActivityTask.objects.filter(attempt=1))
        with running_worker(lease=SHORT) as second:
            beats = WorkerRow.objects.filter(pk=second.id)
            eventually(lambda: beats.filter(beat__gte=6), timeout=60)  # it has looked for the dead twice
            open_gate(gate)
            assert handle.result(timeout=60) == 1
    assert [event.type for event in handle.history()].count("ActivityCompleted") == 1


@pytest.mark.parametrize("became", ["finished", "put back for later"])
def test_what_was_found_free_and_has_moved_on_is_not_taken(became: str) -> None:
    """DBOS #742, PR #232: a stale list of the recovery executed work that had been handed back."""
    me, other = register(), register()
    key = scheduled_task(me)
    now = datetime.now(UTC) + timedelta(seconds=1)
    [found] = claims.poll_tasks(Database(), ["default"], ["store.task"], now, 10)
    [task] = commit(other, TurnBatch(claim_tasks=[found])).claimed_tasks
    if became == "finished":
        ActivityTask.objects.all().delete()
    else:
        commit(other, TurnBatch(retries=[Retry(task, now + timedelta(hours=1), None)]))

    assert commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks == []


@pytest.mark.parametrize("kind", ["instance", "activity"])
def test_what_is_claimed_while_its_worker_stops_is_free_afterwards(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """go-workflows: a task polled as the shutdown hits stayed locked until its lease ran out."""
    workers_: list[Worker] = []
    load, run = TurnLoop._load, TurnLoop._run_tasks

    def load_and_stop(self: TurnLoop, keys: list[str]) -> None:
        if keys and kind == "instance":
            workers_[0].stop()
        load(self, keys)

    def run_and_stop(self: TurnLoop, tasks: list[ClaimedTask]) -> None:
        if tasks and kind == "activity":
            workers_[0].stop()
        run(self, tasks)

    monkeypatch.setattr(TurnLoop, "_load", load_and_stop)
    monkeypatch.setattr(TurnLoop, "_run_tasks", run_and_stop)
    task = tasks_of(None, 1)[0] if kind == "activity" else None
    handle = collect.start(1)
    with running_worker(grace=timedelta(0), workflows=kind == "instance") as worker:
        workers_.append(worker)
        worker.wake()
        assert worker.stopped.wait(timeout=60)
    assert not OpenInstance.objects.exclude(owner_id=None).exists()
    assert not ActivityTask.objects.exclude(owner_id=None).exists()
    monkeypatch.undo()
    with running_worker():
        handle.signal(word, "by the next")
        assert handle.result(timeout=60) == ["by the next"]
        assert handle.status is InstanceStatus.COMPLETED
        eventually(lambda: task is None or not ActivityTask.objects.filter(pk=task.pk).exists())


def test_the_oldest_work_is_found_first() -> None:
    """go-workflows: no ORDER BY when picking tasks, so some might wait for ever."""
    now = datetime.now(UTC)
    tasks = tasks_of(None, 20)
    for age, task in enumerate(tasks):
        ActivityTask.objects.filter(pk=task.pk).update(available_at=now - timedelta(seconds=age))
    found = claims.poll_tasks(Database(), ["default"], ["others.number"], now, 5)
    assert found == [TaskKey(task.instance_id, task.command) for task in reversed(tasks[-5:])]
    rows = [row.id for row in claims.poll_inbox(Database(), ["default"], 0)]
    assert rows == sorted(rows) and len(rows) == 20

"""Commits that go wrong: a lost reply, one item that the database refuses."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.db import OperationalError

from django_workflows import InstanceStatus
from django_workflows.engine import events as ev
from django_workflows.failures import Failure
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    OpenInstance,
)
from django_workflows.store.database import Database
from django_workflows.store.turns import commit_turn, find_landed
from django_workflows.store.work import Deferral, Heartbeat, Outcome, Retry, TurnBatch, TurnResult
from django_workflows.worker import committer
from django_workflows.worker.committer import Committer
from django_workflows.worker.outage import Outage

from .store_support import (
    LEASE,
    activity_scheduled,
    claim,
    commit,
    completed,
    elsewhere,
    first_step,
    register,
    scheduled_task,
    skip_without_row_locks,
    start,
)
from .waiting import eventually, in_threads, waiting_for_locks


def committer_of(worker_id: int) -> Committer:
    database = Database()
    return Committer(database, worker_id, LEASE, Outage(database, threading.Event()))


# A commit whose reply was lost


def test_landed_steps_are_found_after_a_lost_reply() -> None:
    me = register()
    landed, other = (first_step(entry, completed()) for entry in claim(me, *start(2)))
    batch = TurnBatch(steps=[landed, other])
    assert find_landed(Database(), me, batch) == TurnResult()

    commit(me, TurnBatch(steps=[landed]))

    assert find_landed(Database(), me, batch) == TurnResult(committed=[landed])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_look_for_landed_steps_waits_for_the_transaction_that_may_still_commit(end: str) -> None:
    skip_without_row_locks()
    me = register()
    [loaded] = claim(me, *start())
    batch = TurnBatch(steps=[first_step(loaded)])
    answers: list[Any] = []

    def look() -> None:
        answers.extend(find_landed(Database(), me, batch).committed)

    looker = threading.Thread(target=in_threads, args=(look,))
    with elsewhere(lambda: commit_turn(Database(), me, batch), end):
        looker.start()
        eventually(lambda: waiting_for_locks() >= 1)
        assert looker.is_alive()
    looker.join(timeout=10)
    assert answers == (batch.steps if end == "commit" else [])


@pytest.fixture
def lost_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the connection once, after a commit and before its reply."""
    calls: list[TurnBatch] = []

    def commit_and_lose_the_reply(database: Database, worker_id: int, batch: TurnBatch) -> TurnResult:
        result = commit_turn(database, worker_id, batch)
        calls.append(batch)
        if len(calls) == 1:
            raise OperationalError("server closed the connection unexpectedly")
        return result

    monkeypatch.setattr(committer, "commit_turn", commit_and_lose_the_reply)


def test_steps_of_a_commit_with_a_lost_reply_are_neither_lost_nor_doubled(lost_reply: None) -> None:
    me = register()
    steps = [first_step(entry, activity_scheduled()) for entry in claim(me, *start(2))]

    result = committer_of(me).commit(TurnBatch(steps=steps))

    assert result.committed == steps
    assert (result.busy, result.lost) == ([], [])
    assert ActivityTask.objects.count() == 2
    assert HistoryEvent.objects.count() == 4


def test_claims_of_a_commit_with_a_lost_reply_are_known_to_the_worker(lost_reply: None) -> None:
    """A task leased to a living worker that does not know of it would never run."""
    me = register()
    keys = [scheduled_task(me) for _ in range(2)]
    instances = [handle.describe().instance_key for handle in start(2)]

    batch = TurnBatch(claim_tasks=keys, claim_instances=instances)
    result = committer_of(me).commit(batch)

    assert sorted(task.key for task in result.claimed_tasks) == sorted(keys)
    assert [(task.attempt, task.crashes) for task in result.claimed_tasks] == [(1, 1)] * 2
    assert sorted(result.claimed_instances) == sorted(instances)
    assert list(ActivityTask.objects.values_list("owner_id", "attempt")) == [(me, 1)] * 2


def test_what_became_of_attempts_in_a_commit_with_a_lost_reply_counts_once(lost_reply: None) -> None:
    me = register()
    keys = [scheduled_task(me) for _ in range(4)]
    tasks = {task.key: task for task in commit(me, TurnBatch(claim_tasks=keys)).claimed_tasks}
    done, failed, deferred, alive = (tasks[key] for key in keys)
    later = datetime.now(UTC) + timedelta(hours=1)

    batch = TurnBatch(
        outcomes=[Outcome(done, ev.ActivityCompleted(1))],
        retries=[Retry(failed, later, Failure.of(LookupError("first try")))],
        deferrals=[Deferral(deferred, later)],
        heartbeats=[Heartbeat(alive, "[7]", later)],
    )
    committer_of(me).commit(batch)

    assert InboxEvent.objects.filter(type="ActivityCompleted").count() == 1
    assert ActivityTask.objects.count() == 3
    again, open_end, running = (ActivityTask.objects.get(pk=tuple(key)) for key in keys[1:])
    assert (again.owner_id, again.attempt, again.crashes, again.available_at) == (None, 1, 0, later)
    assert (open_end.owner_id, open_end.available_at, open_end.expires_at) == (None, None, later)
    assert (running.owner_id, running.heartbeat) == (me, "[7]")


# One bad item


@pytest.mark.parametrize("bad", [0, 3, 6])
def test_item_that_the_database_refuses_is_blocked_alone(bad: int) -> None:
    me = register()
    handles = start(7)
    steps = [first_step(entry, completed()) for entry in claim(me, *handles)]
    HistoryEvent.objects.create(  # in the way of the bad step's first event
        instance_id=steps[bad].chain.instance, sequence=1, type="InstanceStarted", time=datetime.now(UTC), data="{}"
    )

    result = committer_of(me).commit(TurnBatch(steps=steps))

    statuses = [handle.status for handle in handles]
    assert statuses.pop(bad) is InstanceStatus.BLOCKED
    assert set(statuses) == {InstanceStatus.COMPLETED}
    assert len(result.committed) == 7
    row = OpenInstance.objects.get()
    assert (row.owner_id, row.blocks) == (None, 1)
    OpenInstance.objects.update(history_length=1)  # what was in the way is there


def test_refused_item_does_not_take_claims_and_outcomes_with_it() -> None:
    me = register()
    key = scheduled_task(me)
    [task] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks
    steps = [first_step(entry) for entry in claim(me, *start(2))]
    InboxEvent.objects.filter(pk=steps[0].consumed[0]).delete()
    waiting = start()[0].describe().instance_key
    outcome = Outcome(task, ev.ActivityCompleted(task.key.command, msgspec.Raw(b"1")))

    batch = TurnBatch(steps=steps, outcomes=[outcome], claim_instances=[waiting])
    result = committer_of(me).commit(batch)

    assert result.claimed_instances == [waiting]
    assert steps[1] in result.committed
    assert InboxEvent.objects.filter(type="ActivityCompleted").count() == 1
    assert not ActivityTask.objects.exists()

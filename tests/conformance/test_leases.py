"""Claims, the ends of attempts, death and hand-back, as the store sees them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from django.db import transaction

from django_workflows import ActivityTimeout
from django_workflows.engine import events as ev
from django_workflows.failures import Failure
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    OpenInstance,
    Worker,
)
from django_workflows.store import activities, claims, leftovers, retention, workers
from django_workflows.store.database import Database
from django_workflows.store.work import Outcome, Retry, TurnBatch
from django_workflows.store.workers import WorkerFenced

from .store_support import (
    LEASE,
    activity_scheduled,
    claim,
    commit,
    first_step,
    note,
    register,
    right_behind_the_read_of,
    scheduled_task,
    start,
)
from .waiting import in_threads

# Claims


def test_instance_and_task_are_claimed_by_one_of_many_workers() -> None:
    ids = [register() for _ in range(4)]
    keys = [handle.describe().instance_key for handle in start(40)]
    batch = TurnBatch(claim_instances=keys)
    answers = in_threads(*[lambda me=me: commit(me, batch).claimed_instances for me in ids])  # type: ignore[misc]

    claimed = [key for answer in answers if isinstance(answer, list) for key in answer]
    assert sorted(claimed) == sorted(set(claimed)), "no key twice"
    for me, answer in zip(ids, answers, strict=True):
        assert isinstance(answer, list), answer
        assert set(OpenInstance.objects.filter(owner_id=me).values_list("pk", flat=True)) == set(answer)
    # What was skipped because another held it locked for a moment is there for the next claim.
    assert set(claimed) | set(commit(ids[0], batch).claimed_instances) == set(keys)


def test_activity_task_is_leased_once_and_counts_its_attempt() -> None:
    me, other = register(), register()
    key = scheduled_task(me)

    [task] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks

    assert (task.attempt, task.crashes) == (1, 1)
    assert commit(other, TurnBatch(claim_tasks=[key])).claimed_tasks == []
    row = ActivityTask.objects.get()
    assert (row.owner_id, row.attempt, row.available_at) == (me, 1, None)


# The ends of attempts


def test_outcome_counts_once_and_only_from_the_lease_holder() -> None:
    me, other = register(), register()
    key = scheduled_task(me)
    [task] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks
    outcome = Outcome(task, ev.ActivityCompleted(1, msgspec.Raw(b'"done"')))

    commit(other, TurnBatch(outcomes=[outcome]))
    assert (InboxEvent.objects.count(), ActivityTask.objects.count()) == (0, 1)
    for _ in range(2):
        commit(me, TurnBatch(outcomes=[outcome]))
        assert (InboxEvent.objects.count(), ActivityTask.objects.count()) == (1, 0)


def test_outcome_of_an_earlier_attempt_is_ignored() -> None:
    me = register()
    key = scheduled_task(me)
    [task] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks
    ActivityTask.objects.update(attempt=2)

    commit(me, TurnBatch(outcomes=[Outcome(task, ev.ActivityCompleted(1))]))
    with pytest.raises(activities.LeaseLost), transaction.atomic():
        activities.complete_atomically(Database(), me, task, ev.ActivityCompleted(1))
    assert (InboxEvent.objects.count(), ActivityTask.objects.count()) == (0, 1)


def test_atomic_completion_needs_the_lease() -> None:
    me = register()
    key = scheduled_task(me)
    [task] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks
    with pytest.raises(activities.LeaseLost), transaction.atomic():
        activities.complete_atomically(Database(), register(), task, ev.ActivityCompleted(1))
    assert not InboxEvent.objects.exists()

    with transaction.atomic():
        activities.complete_atomically(Database(), me, task, ev.ActivityCompleted(1))
    assert (InboxEvent.objects.count(), ActivityTask.objects.count()) == (1, 0)


def test_failed_attempt_goes_back_with_its_failure_and_without_an_event() -> None:
    me = register()
    key = scheduled_task(me)
    [task] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks
    later = datetime.now(UTC) + timedelta(hours=1)

    commit(me, TurnBatch(retries=[Retry(task, later, Failure.of(LookupError("first try")))]))

    row = ActivityTask.objects.get()
    assert (row.owner_id, row.attempt, row.crashes) == (None, 1, 0)
    assert row.available_at is not None and abs((row.available_at - later).total_seconds()) < 0.001
    assert row.last_failure is not None and "first try" in row.last_failure
    assert HistoryEvent.objects.count() == 2
    assert commit(register(), TurnBatch(retries=[Retry(task, later, None)])).committed == []
    assert ActivityTask.objects.get().last_failure == row.last_failure


def test_attempt_that_never_started_is_given_back_uncounted() -> None:
    me = register()
    key = scheduled_task(me)
    [task] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks

    commit(me, TurnBatch(retries=[Retry(task, datetime.now(UTC), None, counts=False)]))

    [again] = commit(me, TurnBatch(claim_tasks=[key])).claimed_tasks
    assert (again.attempt, again.crashes) == (1, 1)


def test_unleased_task_past_its_deadline_fails_and_a_running_one_is_left_alone() -> None:
    me = register()
    waiting, running = (scheduled_task(me, schedule_to_close=60) for _ in range(2))
    commit(me, TurnBatch(claim_tasks=[running]))
    assert activities.expire(Database(), datetime.now(UTC)) == 0

    assert activities.expire(Database(), datetime.now(UTC) + timedelta(seconds=61)) == 1

    [row] = InboxEvent.objects.all()
    event = ev.decode_event(row.type, row.data)
    assert isinstance(event, ev.ActivityFailed) and row.instance_id == waiting.instance
    assert isinstance(event.failure.rebuild(), ActivityTimeout)
    assert ActivityTask.objects.get().instance_id == running.instance


# Death and hand-back


def test_only_a_lapsed_worker_that_did_not_renew_can_be_declared_dead() -> None:
    lapsed, healthy = register(lease=timedelta(seconds=-1)), register()
    [found] = workers.find_lapsed(Database(), healthy)
    assert found.id == lapsed
    assert workers.find_lapsed(Database(), lapsed) == [], "nobody reaps itself"

    workers.renew(Database(), lapsed, timedelta(seconds=-1))
    assert workers.declare_dead(Database(), found) is False, "it has beaten since"
    [found] = workers.find_lapsed(Database(), healthy)
    workers.renew(Database(), lapsed, LEASE)
    assert workers.declare_dead(Database(), found) is False
    assert Worker.objects.filter(state=Worker.State.ALIVE).count() == 2

    Worker.objects.filter(pk=lapsed).update(lease_until=datetime.now(UTC) - timedelta(seconds=5))
    [found] = workers.find_lapsed(Database(), healthy)
    assert workers.declare_dead(Database(), found) is True
    assert workers.declare_dead(Database(), found) is False
    with pytest.raises(WorkerFenced):
        workers.renew(Database(), lapsed, LEASE)


@pytest.mark.parametrize("end", ["dead", "gone"])
def test_what_a_worker_without_life_owns_is_handed_back(end: str) -> None:
    dead, alive = register(), register()
    [mine], [theirs] = claim(dead, *start()), claim(alive, *start())
    tasks = scheduled_task(dead), scheduled_task(alive)
    commit(dead, TurnBatch(claim_tasks=[tasks[0]]))
    commit(alive, TurnBatch(claim_tasks=[tasks[1]]))
    if end == "dead":
        workers.retire(Database(), dead)
    else:
        Worker.objects.filter(pk=dead).delete()

    assert workers.hand_back(Database()) == 3  # two instances and a task

    assert OpenInstance.objects.get(pk=mine.chain.open_key).owner_id is None
    assert OpenInstance.objects.get(pk=theirs.chain.open_key).owner_id == alive
    freed, kept = (ActivityTask.objects.get(pk=task) for task in tasks)
    assert (freed.owner_id, freed.attempt) == (None, 1)
    assert freed.available_at is not None
    assert (kept.owner_id, kept.available_at) == (alive, None)
    assert workers.hand_back(Database()) == 0


# Loading


def test_an_instance_that_is_removed_while_it_is_read_is_not_taken_for_a_damaged_one() -> None:
    """A worker that stood still between the two reads blocked it, and said so in its log (seed 1910 of the soak)."""
    handle, other = start(2)
    me = register()
    loaded = claim(me, handle, other)
    commit(me, TurnBatch(steps=[first_step(entry, activity_scheduled()) for entry in loaded]))

    def remove() -> None:
        handle.terminate()
        database = Database()
        assert list(retention.prune(database, "terminated", database.now() + timedelta(hours=1))) == [1]

    with right_behind_the_read_of(OpenInstance._meta.db_table, remove):
        found = claims.load_instances(Database(), [entry.chain.open_key for entry in loaded])

    assert [entry.chain.info.instance_id for entry in found] == [other.instance_id]


# Leftovers


def test_messages_of_closed_chains_are_collected_and_late_signals_stay_to_be_seen() -> None:
    handle, other = start(2)
    handle.signal(note, 1)
    handle.cancel()
    other.signal(note, 2)
    handle.terminate()

    rows = claims.poll_inbox(Database(), ["default"], 0)
    leftovers.collect_inbox(Database(), [row for row in rows if row.open_key is None])

    chain = handle.describe().chain
    [signal] = InboxEvent.objects.filter(chain_id=chain)
    assert (signal.type, signal.queue) == ("SignalReceived", None)
    assert InboxEvent.objects.exclude(chain_id=chain).filter(queue="default").count() == 2

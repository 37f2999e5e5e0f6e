"""The store's verbs, called as a worker calls them: fences, comparisons, locks, lost replies, bad items."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_workflows import ActivityTimeout, InstanceStatus, Signal, WorkflowHandle, workflow
from django_workflows.engine import events as ev
from django_workflows.engine.steps import Step
from django_workflows.failures import Failure
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    OpenInstance,
    Timer,
    Worker,
    WorkflowInstance,
)
from django_workflows.retries import RetryPolicy
from django_workflows.store import activities, claims, leftovers, workers
from django_workflows.store.database import Database
from django_workflows.store.turns import InboxChanged, commit_turn, find_landed
from django_workflows.store.work import InstanceStep, LoadedInstance, Outcome, Retry, TaskKey, TurnBatch, TurnResult
from django_workflows.store.workers import WorkerFenced
from django_workflows.worker import committer
from django_workflows.worker.committer import Committer

from .waiting import eventually, in_threads, waiting_for_locks

LEASE = timedelta(seconds=30)
note = Signal("note", int)


@workflow(name="store.anything")
async def anything() -> None: ...


def start(count: int = 1) -> list[WorkflowHandle[None]]:
    return anything.start_many([()] * count)


def register(lease: timedelta = LEASE) -> int:
    return workers.register(Database(), queues=["default"], slots=4, lease=lease)


def commit(worker_id: int, batch: TurnBatch) -> TurnResult:
    database = Database()
    database.prepare_worker_session(LEASE.total_seconds())
    return commit_turn(database, worker_id, batch)


def claim(worker_id: int, *handles: WorkflowHandle[Any]) -> list[LoadedInstance]:
    """Claim instances and return them as loaded, in the order of the handles."""
    keys = [handle.describe().instance_key for handle in handles]
    claimed = commit(worker_id, TurnBatch(claim_instances=keys)).claimed_instances
    loaded = {entry.chain.open_key: entry for entry in claims.load_instances(Database(), claimed)}
    return [loaded[key] for key in keys]


def first_step(loaded: LoadedInstance, *decisions: ev.Event) -> InstanceStep:
    step = Step(time=datetime.now(UTC), events=[ev.InstanceStarted(), *decisions])
    return InstanceStep(loaded.chain, step, consumed=[row.id for row in loaded.inbox])


def activity_scheduled(command: int = 1, **options: Any) -> ev.ActivityScheduled:
    options.setdefault("retry", RetryPolicy().to_json())
    return ev.ActivityScheduled(
        command=command, name="store.task", input=msgspec.Raw(b"[[],{}]"), queue="default", options=options
    )


def completed(command: int = 9) -> ev.InstanceCompleted:
    return ev.InstanceCompleted(command=command, result=msgspec.Raw(b"null"))


def scheduled_task(worker_id: int, **options: Any) -> TaskKey:
    """Return the key of an unleased activity task of a new instance."""
    [loaded] = claim(worker_id, *start())
    commit(worker_id, TurnBatch(steps=[first_step(loaded, activity_scheduled(1, **options))]))
    return TaskKey(loaded.chain.instance, 1)


@contextmanager
def elsewhere(action: Callable[[], object], end: str = "rollback") -> Iterator[None]:
    """Hold a transaction that has done something open on another connection for the length of the block."""
    done, leave = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def hold() -> None:
        with transaction.atomic():
            action()
            done.set()
            leave.wait(timeout=20)
            transaction.set_rollback(end == "rollback")

    thread = threading.Thread(target=lambda: errors.extend(e for e in in_threads(hold) if e is not None))
    thread.start()
    eventually(lambda: done.is_set() or not thread.is_alive())
    try:
        yield
    finally:
        leave.set()
        thread.join(timeout=20)
    assert not errors, errors


def skip_without_row_locks() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time and no row locks")


# The fence


@pytest.mark.parametrize("end", ["dead", "gone"])
def test_worker_that_is_not_alive_commits_and_claims_nothing(end: str) -> None:
    me = register()
    first, second = start(2)
    [loaded] = claim(me, first)
    if end == "dead":
        Worker.objects.filter(pk=me).update(state=Worker.State.DEAD)
    else:
        Worker.objects.filter(pk=me).delete()

    with pytest.raises(WorkerFenced):
        commit(me, TurnBatch(steps=[first_step(loaded, activity_scheduled(), completed())]))
    with pytest.raises(WorkerFenced):
        commit(me, TurnBatch(claim_instances=[second.describe().instance_key]))
    with pytest.raises(WorkerFenced):
        workers.renew(Database(), me, LEASE)

    assert first.history() == []
    assert InboxEvent.objects.count() == 2
    assert not ActivityTask.objects.exists()
    assert OpenInstance.objects.get(pk=second.describe().instance_key).owner_id is None


def test_worker_cannot_be_declared_dead_while_it_commits() -> None:
    skip_without_row_locks()
    me = register(lease=timedelta(seconds=-1))
    [loaded] = claim(me, *start())
    [lapsed] = workers.find_lapsed(Database(), 0)

    with elsewhere(lambda: commit_turn(Database(), me, TurnBatch(steps=[first_step(loaded)])), end="commit"):
        assert workers.declare_dead(Database(), lapsed) is False
    assert workers.declare_dead(Database(), lapsed) is True
    assert [event.type for event in HistoryEvent.objects.all()] == ["InstanceStarted"]


# What moved on since it was read


def changed_by_terminate(chain: Any) -> None:
    anything.handle(chain.info.instance_id).terminate()


def changed_by_another_owner(chain: Any) -> None:
    OpenInstance.objects.filter(pk=chain.open_key).update(owner_id=register())


def changed_by_replacement(chain: Any) -> None:
    anything.using(instance_id=chain.info.instance_id, on_conflict="terminate_existing").start()


@pytest.mark.parametrize("change", [changed_by_terminate, changed_by_another_owner, changed_by_replacement])
def test_step_of_an_instance_that_moved_on_is_lost_and_the_others_commit(change: Callable[[Any], None]) -> None:
    me = register()
    loaded = claim(me, *start(3))
    steps = [first_step(entry, activity_scheduled()) for entry in loaded]
    change(loaded[1].chain)

    result = commit(me, TurnBatch(steps=steps))

    assert result.lost == [steps[1]]
    assert result.committed == [steps[0], steps[2]]
    assert result.busy == []
    assert set(ActivityTask.objects.values_list("instance_id", flat=True)) == {
        loaded[0].chain.instance,
        loaded[2].chain.instance,
    }


def test_step_computed_from_an_older_history_is_lost() -> None:
    me = register()
    [loaded] = claim(me, *start())
    step = first_step(loaded)
    assert commit(me, TurnBatch(steps=[step])).committed == [step]

    again = InstanceStep(loaded.chain, Step(time=step.step.time, events=[ev.CancelRequested("late")]))
    result = commit(me, TurnBatch(steps=[again]))

    assert result.lost == [again]
    assert HistoryEvent.objects.count() == 1


@pytest.mark.parametrize("order", ["old first", "new first"])
def test_old_and_new_execution_of_one_id_in_one_turn_are_told_apart(order: str) -> None:
    """The open row is the same, so the key alone does not say whose it is."""
    me = register()
    [old] = claim(me, anything.using(instance_id="one").start())
    replace = anything.using(instance_id="one", on_conflict="terminate_existing")
    [new] = claim(me, replace.start())
    stale, fresh = first_step(old), first_step(new, completed())

    result = commit(me, TurnBatch(steps=[fresh, stale] if order == "new first" else [stale, fresh]))

    assert (result.committed, result.lost, result.busy) == ([fresh], [stale], [])
    assert [event.type for event in HistoryEvent.objects.filter(instance_id=old.chain.instance)] == [
        "InstanceTerminated"
    ]
    assert anything.handle("one").status is InstanceStatus.COMPLETED


# Locks of the application


@pytest.mark.parametrize("end", ["rollback", "commit"])
def test_row_held_by_an_open_transaction_makes_only_that_step_wait(end: str) -> None:
    skip_without_row_locks()
    me = register()
    handles = start(3)
    steps = [first_step(entry, completed()) for entry in claim(me, *handles)]

    with elsewhere(handles[1].terminate, end):
        result = commit(me, TurnBatch(steps=steps))
        assert result.busy == [steps[1]]
        assert result.committed == [steps[0], steps[2]]
        assert commit(me, TurnBatch(steps=[steps[1]])).busy == [steps[1]], "and again, without waiting"

    result = commit(me, TurnBatch(steps=[steps[1]]))
    assert (result.committed, result.lost) == (([steps[1]], []) if end == "rollback" else ([], [steps[1]]))


def test_closing_waits_for_an_application_that_holds_the_instance_row_and_steps_do_not() -> None:
    skip_without_row_locks()
    me = register()
    handles = start(2)
    loaded = claim(me, *handles)
    closing, going_on = first_step(loaded[0], completed()), first_step(loaded[1])

    def hold() -> None:
        for handle in handles:
            WorkflowInstance.objects.select_for_update().get(pk=handle.describe().pk)

    with elsewhere(hold):
        result = commit(me, TurnBatch(steps=[closing, going_on]))
        assert (result.busy, result.committed) == ([closing], [going_on])
    assert commit(me, TurnBatch(steps=[closing])).committed == [closing]


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda: anything.start(), id="start"),
        pytest.param(lambda: start(20), id="start_many"),
        pytest.param(lambda: anything.handle("mine").signal(note, 1), id="signal"),
        pytest.param(lambda: anything.handle("mine").cancel(), id="cancel"),
        pytest.param(lambda: anything.handle("other").terminate(), id="terminate another"),
    ],
)
def test_turn_never_waits_for_an_open_transaction(act: Callable[[], object]) -> None:
    """Nor do the claims and sweeps beside it; the lock timeout of a second would show as an error."""
    skip_without_row_locks()
    database, me = Database(), register()
    anything.using(instance_id="other").start()
    [mine] = claim(me, anything.using(instance_id="mine").start())
    claimable = start(2)
    dead = register()
    [orphan] = claim(dead, *start())
    timers = [ev.TimerStarted(command=number, fire_at=datetime.now(UTC)) for number in (3, 4)]

    with elsewhere(act):
        step = first_step(mine, activity_scheduled(1), activity_scheduled(2), *timers)
        assert commit(me, TurnBatch(steps=[step])).committed == [step]
        mine.chain.history_length = len(step.step.events)
        taken = commit(me, TurnBatch(claim_instances=[handle.describe().instance_key for handle in claimable]))
        assert len(taken.claimed_instances) == 2
        keys = [TaskKey(mine.chain.instance, number) for number in (1, 2)]
        tasks = commit(me, TurnBatch(claim_tasks=keys)).claimed_tasks
        assert len(tasks) == 2
        failed = ev.ActivityFailed(command=1, failure=Failure.of(LookupError("x")))
        commit(me, TurnBatch(outcomes=[Outcome(tasks[0], failed)]))
        close = InstanceStep(
            mine.chain,
            Step(time=datetime.now(UTC), events=[ev.TimerFired(3), completed()]),
            abandoned=[activity_scheduled(2), timers[1]],
        )
        assert commit(me, TurnBatch(steps=[close])).committed == [close]
        Worker.objects.filter(pk=dead).update(state=Worker.State.DEAD)
        assert workers.hand_back(database) == 1
        rows = claims.poll_inbox(database, ["default"], 0)
        leftovers.collect_inbox(database, [row for row in rows if row.open_key is None])
        leftovers.park_blocked(database, rows)
        leftovers.sweep(database)
        activities.expire(database, datetime.now(UTC))
    assert not Timer.objects.exists()
    assert OpenInstance.objects.get(pk=orphan.chain.open_key).owner_id is None


# The inbox


def test_turn_whose_inbox_rows_are_gone_is_rolled_back_whole() -> None:
    me = register()
    handles = start(2)
    steps = [first_step(entry, activity_scheduled()) for entry in claim(me, *handles)]
    InboxEvent.objects.filter(pk=steps[1].consumed[0]).delete()

    with pytest.raises(InboxChanged, match="expected 2 consumed inbox rows, found 1"):
        commit(me, TurnBatch(steps=steps))
    assert not HistoryEvent.objects.exists()
    assert not ActivityTask.objects.exists()
    assert InboxEvent.objects.count() == 1


def test_step_deletes_the_rows_that_it_read_and_no_others() -> None:
    me = register()
    [handle] = start()
    [loaded] = claim(me, handle)
    handle.signal(note, 1)

    commit(me, TurnBatch(steps=[first_step(loaded)]))

    assert [row.type for row in InboxEvent.objects.all()] == ["SignalReceived"]


# A commit whose reply was lost


def test_landed_steps_are_found_after_a_lost_reply() -> None:
    me = register()
    landed, other = (first_step(entry, completed()) for entry in claim(me, *start(2)))
    batch = TurnBatch(steps=[landed, other])
    assert find_landed(Database(), me, batch) == []

    commit(me, TurnBatch(steps=[landed]))

    assert find_landed(Database(), me, batch) == [landed]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_look_for_landed_steps_waits_for_the_transaction_that_may_still_commit(end: str) -> None:
    skip_without_row_locks()
    me = register()
    [loaded] = claim(me, *start())
    batch = TurnBatch(steps=[first_step(loaded)])
    answers: list[Any] = []

    def look() -> None:
        answers.extend(find_landed(Database(), me, batch))

    looker = threading.Thread(target=in_threads, args=(look,))
    with elsewhere(lambda: commit_turn(Database(), me, batch), end):
        looker.start()
        eventually(lambda: waiting_for_locks() >= 1)
        assert looker.is_alive()
    looker.join(timeout=10)
    assert answers == (batch.steps if end == "commit" else [])


def test_committer_goes_on_after_a_lost_reply_without_doing_anything_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after the commit and before the reply."""
    me = register()
    steps = [first_step(entry, activity_scheduled()) for entry in claim(me, *start(2))]
    calls: list[int] = []

    def commit_and_lose_the_reply(database: Database, worker_id: int, batch: TurnBatch) -> TurnResult:
        result = commit_turn(database, worker_id, batch)
        calls.append(len(batch.steps))
        if len(calls) == 1:
            raise OperationalError("server closed the connection unexpectedly")
        return result

    monkeypatch.setattr(committer, "commit_turn", commit_and_lose_the_reply)
    result = Committer(Database(), me, LEASE, lambda: None).commit(TurnBatch(steps=steps))

    assert result.committed == steps
    assert (result.busy, result.lost) == ([], [])
    assert ActivityTask.objects.count() == 2
    assert HistoryEvent.objects.count() == 4


# One bad item


@pytest.mark.parametrize("bad", [0, 3, 6])
def test_item_that_the_database_refuses_is_blocked_alone(bad: int) -> None:
    me = register()
    handles = start(7)
    steps = [first_step(entry, completed()) for entry in claim(me, *handles)]
    HistoryEvent.objects.create(  # in the way of the bad step's first event
        instance_id=steps[bad].chain.instance, sequence=1, type="InstanceStarted", time=datetime.now(UTC), data="{}"
    )

    result = Committer(Database(), me, LEASE, lambda: None).commit(TurnBatch(steps=steps))

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
    result = Committer(Database(), me, LEASE, lambda: None).commit(batch)

    assert result.claimed_instances == [waiting]
    assert steps[1] in result.committed
    assert InboxEvent.objects.filter(type="ActivityCompleted").count() == 1
    assert not ActivityTask.objects.exists()


# Size


def test_number_of_statements_does_not_depend_on_the_batch() -> None:
    me = register()
    counts = []
    for size in (1, 60):
        steps = [first_step(entry, activity_scheduled(), completed()) for entry in claim(me, *start(size))]
        with CaptureQueriesContext(connection) as queries:
            assert len(commit(me, TurnBatch(steps=steps)).committed) == size
        counts.append(len(queries))
    assert counts[0] == counts[1] < 15


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

"""Turns, committed as a worker commits them: fences, comparisons, locks of the application."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_workflows import InstanceStatus
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
from django_workflows.store import activities, claims, leftovers, workers
from django_workflows.store.database import Database
from django_workflows.store.turns import InboxChanged, commit_turn
from django_workflows.store.work import InstanceStep, Outcome, TaskKey, TurnBatch
from django_workflows.store.workers import WorkerFenced

from .store_support import (
    LEASE,
    activity_scheduled,
    anything,
    claim,
    commit,
    completed,
    elsewhere,
    first_step,
    note,
    register,
    right_behind_the_read_of,
    skip_without_row_locks,
    start,
)

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


def test_what_was_parked_is_found_again_once_its_instance_is_unblocked() -> None:
    """A step reads so many rows at most, and its worker may die before the next."""
    me = register()
    [handle] = start()
    handle.signal(note, 1)
    InboxEvent.objects.update(queue=None)
    OpenInstance.objects.update(blocks=1)
    [loaded] = claim(me, handle)
    step = first_step(loaded)
    step.consumed = step.consumed[:1]

    assert commit(me, TurnBatch(steps=[step])).committed == [step]

    [row] = claims.poll_inbox(Database(), ["default"], 0)
    assert (row.type, row.blocks) == ("SignalReceived", 0)


def test_nothing_is_parked_of_an_instance_that_is_unblocked_meanwhile() -> None:
    """Nobody would find it: what an open instance has not read yet is parked only while it is blocked."""
    skip_without_row_locks()
    me = register()
    [handle] = start()
    handle.signal(note, 1)
    OpenInstance.objects.update(blocks=1)
    rows = claims.poll_inbox(Database(), ["default"], 0)

    def unblock() -> None:
        claimed = commit(me, TurnBatch(claim_instances=[handle.describe().instance_key])).claimed_instances
        for loaded in claims.load_instances(Database(), claimed):
            step = first_step(loaded)
            step.consumed = step.consumed[:1]
            assert commit(me, TurnBatch(steps=[step])).committed == [step]

    with right_behind_the_read_of(InboxEvent._meta.db_table, unblock):
        leftovers.park_blocked(Database(), rows)

    is_parked = InboxEvent.objects.filter(queue=None).exists()
    assert is_parked == bool(OpenInstance.objects.get().blocks)


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

"""The deadline in an activity task's row: for which timeout it stands in which state, and what happens then."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from django_workflows import (
    ActivityTimeout,
    RetryPolicy,
    ScheduleToCloseTimeout,
    ScheduleToStartTimeout,
    StartToCloseTimeout,
)
from django_workflows.engine import events as ev
from django_workflows.failures import Failure
from django_workflows.models import ActivityTask, InboxEvent
from django_workflows.store import activities, workers
from django_workflows.store.database import Database
from django_workflows.store.work import ClaimedTask, Deferral, Retry, TurnBatch

from .store_support import activity_scheduled, claim, commit, first_step, register, scheduled_task, start

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def row() -> ActivityTask:
    return ActivityTask.objects.get()


def deadline() -> datetime:
    expires_at = row().expires_at
    assert expires_at is not None
    return expires_at


def leased(me: int, **options: float) -> ClaimedTask:
    [task] = commit(me, TurnBatch(claim_tasks=[scheduled_task(me, **options)])).claimed_tasks
    return task


def claim_after_its_pause(me: int, task: ClaimedTask) -> ClaimedTask:
    """Lease it as if the pause before its next attempt were over."""
    ActivityTask.objects.update(available_at=Database().now())
    [again] = commit(me, TurnBatch(claim_tasks=[task.key])).claimed_tasks
    return again


def outcome() -> ActivityTimeout:
    """Return what the only row of the inbox tells the workflow."""
    [message] = InboxEvent.objects.exclude(type="InstanceStarted")
    event = ev.decode_event(message.type, message.data)
    assert isinstance(event, ev.ActivityFailed)
    error = event.failure.rebuild()
    assert isinstance(error, ActivityTimeout)
    return error


@pytest.mark.parametrize(
    ("options", "seconds", "error"),
    [
        ({"schedule_to_start": 60}, 60, ScheduleToStartTimeout),
        ({"schedule_to_close": 60}, 60, ScheduleToCloseTimeout),
        ({"schedule_to_start": 60, "schedule_to_close": 90}, 60, ScheduleToStartTimeout),
        ({"schedule_to_start": 90, "schedule_to_close": 60}, 60, ScheduleToCloseTimeout),
        ({"schedule_to_start": 60, "schedule_to_close": 60}, 60, ScheduleToCloseTimeout),
    ],
)
def test_a_waiting_task_ends_with_the_earlier_of_two_timeouts(
    options: dict[str, float], seconds: float, error: type[ActivityTimeout]
) -> None:
    scheduled_task(register(), start_to_close=1, heartbeat=1, **options)
    assert deadline() == row().scheduled_at + timedelta(seconds=seconds)
    assert activities.expire(Database(), deadline() - timedelta(microseconds=1)) == 0
    assert activities.expire(Database(), deadline()) == 1
    assert type(outcome()) is error and "attempt 1" in str(outcome())
    assert not ActivityTask.objects.exists()


def test_a_leased_task_has_no_deadline_in_its_row() -> None:
    me = register()
    leased(me, schedule_to_start=60, schedule_to_close=60)
    assert row().expires_at is None
    assert activities.expire(Database(), Database().now() + 2 * MINUTE) == 0

    ActivityTask.objects.all().delete()
    [loaded] = claim(me, *start())
    step = first_step(loaded, activity_scheduled(1, schedule_to_start=60, schedule_to_close=60))
    step.eager = {1}
    commit(me, TurnBatch(steps=[step]))
    assert (row().owner_id, row().expires_at) == (me, None)


def test_what_a_dead_worker_leaves_waits_anew_for_a_worker_but_not_for_its_end() -> None:
    me = register()
    leased(me, schedule_to_start=60, schedule_to_close=3600)
    workers.retire(Database(), me)
    ActivityTask.objects.update(scheduled_at=row().scheduled_at - 30 * MINUTE)
    workers.hand_back(Database())
    available_at = row().available_at
    assert available_at is not None and deadline() == available_at + MINUTE

    ActivityTask.objects.update(scheduled_at=row().scheduled_at - 29.5 * MINUTE, owner_id=me)
    workers.hand_back(Database())
    assert deadline() == row().scheduled_at + 60 * MINUTE


def test_a_failed_attempt_waits_for_a_worker_from_the_end_of_its_pause() -> None:
    me = register()
    task = leased(me, schedule_to_start=60, schedule_to_close=3600)
    later = task.scheduled_at + 10 * MINUTE
    commit(me, TurnBatch(retries=[Retry(task, later, Failure.of(LookupError()))]))
    assert deadline() == later + MINUTE
    task = claim_after_its_pause(me, task)
    commit(me, TurnBatch(retries=[Retry(task, task.scheduled_at + 59.5 * MINUTE, Failure.of(LookupError()))]))
    assert deadline() == task.scheduled_at + 60 * MINUTE


def test_an_attempt_that_is_given_back_keeps_its_place_its_deadline_and_the_last_failure() -> None:
    me = register()
    task = leased(me, schedule_to_start=60)
    commit(me, TurnBatch(retries=[Retry(task, task.scheduled_at, Failure.of(LookupError("first")))]))
    before = row()
    [task] = commit(me, TurnBatch(claim_tasks=[task.key])).claimed_tasks
    assert task.waiting_since == before.available_at
    assert task.waiting_since is not None
    commit(me, TurnBatch(retries=[Retry(task, task.waiting_since, None, counts=False)]))
    after = row()
    assert (after.attempt, after.available_at, after.expires_at) == (1, before.available_at, before.expires_at)
    assert after.last_failure == before.last_failure is not None


def test_a_deferred_task_is_tried_again_as_its_policy_says_and_no_more() -> None:
    me, policy = register(), RetryPolicy(max_attempts=2, initial_interval=10 * SECOND).to_json()
    for attempt in (1, 2):
        if attempt == 1:
            task = leased(me, start_to_close=60, schedule_to_start=5, retry=policy)
        else:
            task = claim_after_its_pause(me, task)
        commit(me, TurnBatch(deferrals=[Deferral(task, task.scheduled_at + MINUTE)]))
        assert (row().owner_id, row().available_at, row().crashes) == (None, None, 0)
        assert workers.hand_back(Database()) == 0
        assert commit(me, TurnBatch(claim_tasks=[task.key])).claimed_tasks == []
        now = deadline()
        assert activities.expire(Database(), now) == 1
        if attempt == 1:
            assert (row().attempt, row().available_at, row().expires_at) == (1, now + 10 * SECOND, now + 15 * SECOND)
            failure = row().last_failure
            assert failure is not None and isinstance(Failure.decode(failure).rebuild(), StartToCloseTimeout)
    assert type(outcome()) is StartToCloseTimeout and "attempt 2" in str(outcome())
    assert not ActivityTask.objects.exists()


def test_a_deferred_task_is_not_tried_again_behind_the_end_of_all_attempts() -> None:
    me, policy = register(), RetryPolicy(initial_interval=10 * SECOND).to_json()
    task = leased(me, start_to_close=60, schedule_to_close=69, retry=policy)
    commit(me, TurnBatch(deferrals=[Deferral(task, task.scheduled_at + MINUTE)]))
    assert activities.expire(Database(), deadline()) == 1
    assert type(outcome()) is StartToCloseTimeout


def test_a_deferral_of_an_earlier_attempt_or_of_somebody_else_is_ignored() -> None:
    me = register()
    task = leased(me)
    commit(register(), TurnBatch(deferrals=[Deferral(task, None)]))
    assert row().owner_id == me
    ActivityTask.objects.update(attempt=2)
    commit(me, TurnBatch(deferrals=[Deferral(task, None)]))
    assert row().owner_id == me


def test_options_that_cannot_be_read_end_their_activity_alone() -> None:
    me = register()
    bad, good = scheduled_task(me, schedule_to_close=60), scheduled_task(me, schedule_to_close=60)
    ActivityTask.objects.filter(pk=tuple(bad)).update(options="no json")
    assert activities.expire(Database(), Database().now() + 2 * MINUTE) == 2
    found = {
        message.instance_id: str(event.failure.type)
        for message in InboxEvent.objects.exclude(type="InstanceStarted")
        if isinstance(event := ev.decode_event(message.type, message.data), ev.ActivityFailed)
    }
    assert found[bad.instance].endswith("PayloadError") and found[good.instance].endswith("ScheduleToCloseTimeout")

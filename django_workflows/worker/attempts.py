"""Between the turns and the activity pool: what is leased ahead, what is tried again, what is told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from django_workflows import registry
from django_workflows.authoring.attempt import Beat
from django_workflows.conf import get_settings
from django_workflows.engine.events import ActivityCompleted, ActivityFailed, ActivityScheduled, ResultEvent
from django_workflows.exceptions import PayloadError, WorkerLost
from django_workflows.failures import Failure
from django_workflows.payloads import Raw
from django_workflows.retries import RetryPolicy
from django_workflows.store.activities import find_still_wanted
from django_workflows.store.database import Database
from django_workflows.store.deadlines import deferred_until, limits_of_waiting, next_attempt, timeout_error
from django_workflows.store.work import ClaimedTask, Deferral, Heartbeat, InstanceStep, Retry, TaskKey
from django_workflows.wakeups.announcer import one_line

from .activities import ActivityPool
from .clock import DatabaseClock
from .running import AttemptResult

logger = logging.getLogger("django_workflows.worker")

_STALE_BACKLOG = 1.0  # seconds that an attempt may wait for a thread here before others may have it
_PAUSE_BEFORE_BEGINNING = timedelta(seconds=1)  # for an atomic activity whose transaction could not be opened
_COMPLAINT_INTERVAL = 60.0  # seconds between two lines about that
_HEARTBEAT_INTERVAL = 1.0  # seconds between two writes of what running attempts reported
_CHECK_INTERVAL = 1.0  # seconds between two looks whether running attempts are still wanted


class Attempts:
    """Decides about attempts; the pool only runs them."""

    def __init__(
        self, database: Database, clock: DatabaseClock, worker_id: int, queues: set[str], pool: ActivityPool,
        report: Callable[[AttemptResult], None],
    ) -> None:  # fmt: skip
        self.database, self.clock, self.worker_id, self.queues, self.pool = database, clock, worker_id, queues, pool
        self._report = report
        self._room = {True: 0, False: 0}  # for eager attempts of the turn that is being stepped, async and sync
        self._complains_from = 0.0
        self._check_due = 0.0
        self._heartbeats_due = 0.0

    def __len__(self) -> int:
        return len(self.pool)

    # Before the commit

    def begin_turn(self) -> None:
        """See how much room there is: what the last turn promised is in the pool now, or will be stepped again."""
        self._room = {is_async: self.pool.room(is_async=is_async) for is_async in (True, False)}

    def choose_eager(self, step: InstanceStep) -> None:
        """Pick the scheduled activities that this worker will run itself: inserted leased, never looked for."""
        for event in step.step.events:
            if isinstance(event, ActivityScheduled) and event.queue in self.queues:
                definition = registry.activities.get(event.name)
                if definition is None or not definition.is_available:
                    continue
                if self._room[definition.is_async] > 0:
                    self._room[definition.is_async] -= 1
                    step.eager.add(event.command)

    def outcome(self, result: AttemptResult) -> ResultEvent | Retry | Deferral:
        """Return what a finished attempt means: the event for its instance, another attempt, or a wait for others."""
        task = result.task
        if result.deferred_since is not None:
            began_at = self.clock.at(result.deferred_since)
            return Deferral(task, deferred_until(task.scheduled_at, began_at, task.options))
        if result.error is None:
            assert result.result is not None
            return ActivityCompleted(task.key.command, Raw(result.result))
        failure, now = Failure.of(result.error), self.clock.now()
        if not result.has_begun:
            self._say_why_none_begins(result.error)
            return Retry(task, now + _PAUSE_BEFORE_BEGINNING, failure, counts=False)
        again_at = None
        if not result.is_final:
            again_at = next_attempt(result.error, task.attempt, task.scheduled_at, task.options, now)
        if again_at is None:
            return ActivityFailed(command=task.key.command, failure=failure)
        logger.info(
            "%s of %r failed (attempt %s), next try in %.3g s: %s", task.name, task.instance_id, task.attempt,
            (again_at - now).total_seconds(), one_line(result.error),
        )  # fmt: skip
        return Retry(task, again_at, failure)

    def _say_why_none_begins(self, error: BaseException) -> None:
        """Say it once in a while: all that wait for a thread meet the same trouble."""
        if time.monotonic() >= self._complains_from:
            self._complains_from = time.monotonic() + _COMPLAINT_INTERVAL
            logger.warning("atomic activities cannot begin, trying again: %s", one_line(error))

    def heartbeat(self, task: ClaimedTask, beat: Beat) -> Heartbeat:
        """Return what the row of an attempt should say about its last heartbeat."""
        return Heartbeat(task, None if beat.details is None else beat.details.decode(), self.clock.at(beat.at))

    def take_heartbeats(self) -> list[Heartbeat]:
        """Return the new heartbeats of running attempts, about once a second; else nothing."""
        if time.monotonic() < self._heartbeats_due:
            return []
        self._heartbeats_due = time.monotonic() + _HEARTBEAT_INTERVAL
        return [self.heartbeat(task, beat) for task, beat in self.pool.new_beats()]

    def take_back(self, *, draining: bool) -> list[Retry]:
        """Return the leased attempts that no thread got round to, so that other workers may have them."""
        now = self.clock.now()
        waiting = self.pool.take_back(0.0 if draining else _STALE_BACKLOG)
        # They keep their place in the queue, and what is left of their time to start.
        return [Retry(task, task.waiting_since or now, None, counts=False) for task in waiting]

    # After the commit

    def start(self, task: ClaimedTask) -> None:
        """Start an attempt, or fail an activity whose permitted attempts all ended with their workers."""
        definition = registry.activities.get(task.name)
        assert definition is not None
        now = self.clock.now()
        limits = limits_of_waiting(task.scheduled_at, task.waiting_since, task.options)
        passed = min((limit for limit in limits if limits[limit] <= now), key=limits.__getitem__, default=None)
        if task.unreadable:
            self._fail(task, PayloadError(f"{task.name}: {task.unreadable}"))
        elif passed is not None:
            self._fail(task, timeout_error(passed, task.name, task.attempt, task.options))
        elif task.crashes > 1 and self._is_used_up(task):
            lost = f"{task.name}: the worker that ran attempt {task.attempt - 1} died, and no attempt is left"
            self._fail(task, WorkerLost(lost))
        else:
            left = {limit: (moment - now).total_seconds() for limit, moment in limits.items()}
            self.pool.submit(task, definition, left)

    def _fail(self, task: ClaimedTask, error: Exception) -> None:
        """End an activity for good without running it."""
        self._report(AttemptResult(task, error=error, is_final=True))

    def start_eager(self, step: InstanceStep, event: ActivityScheduled) -> None:
        """Start an activity that this step inserted already leased."""
        chain, time = step.chain, step.step.time
        self.start(
            ClaimedTask(
                key=TaskKey(chain.instance, event.command), chain=chain.chain, name=event.name, queue=event.queue,
                workflow_queue=chain.queue, attempt=1, crashes=1, scheduled_at=time, waiting_since=time,
                options=event.options, input=bytes(event.input), instance_id=chain.info.instance_id,
                execution_id=chain.info.execution_id, workflow=chain.info.workflow,
            )
        )  # fmt: skip

    def _is_used_up(self, task: ClaimedTask) -> bool:
        policy = RetryPolicy.from_json(task.options["retry"])
        if task.crashes > get_settings().crash_limit:
            return True
        return policy.max_attempts is not None and task.attempt > policy.max_attempts

    def cancel(self, key: TaskKey) -> None:
        self.pool.cancel(key)

    def check_wanted(self) -> None:
        """Stop the attempts whose row is gone, leased to somebody else, or left behind by a closed instance.

        Nobody has to tell this worker: the owner of an instance only deletes rows, and terminate not even that.
        """
        if time.monotonic() < self._check_due:
            return
        self._check_due = time.monotonic() + _CHECK_INTERVAL
        running = self.pool.running_since(time.monotonic() - _CHECK_INTERVAL)
        for key in running - find_still_wanted(self.database, self.worker_id, running):
            self.pool.cancel(key)

"""The loop of turns: collect, step, commit, dispatch.

One commit carries what happened to many instances since the last one; what arrives during a commit is the next turn's.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django_workflows import registry
from django_workflows.conf import get_settings
from django_workflows.engine import events as ev
from django_workflows.engine.steps import Step
from django_workflows.exceptions import WorkerLost
from django_workflows.failures import Failure
from django_workflows.retries import RetryPolicy
from django_workflows.store import claims
from django_workflows.store.activities import find_still_leased
from django_workflows.store.database import Database
from django_workflows.store.work import ClaimedTask, InstanceStep, Outcome, Retry, TaskKey, TurnBatch

from . import stepping
from .activities import ActivityPool, AttemptResult
from .clock import DatabaseClock
from .committer import Committer
from .finder import Finder, Findings
from .guards import StepWatch
from .held import Held, Input, StickyCache

logger = logging.getLogger("django_workflows.worker")

_BUSY_PAUSE = 0.02  # before a step whose rows were locked is offered again
_MOST_INPUTS = 500  # of one instance in one step
_STALE_BACKLOG = 1.0  # seconds that an attempt may wait for a thread here before others may have it
WAKE = object()  # put into the mailbox: look for work now


@dataclass
class Statistics:
    """What a loop has done since its start."""

    turns: int = 0
    steps: int = 0
    closed: int = 0
    attempts: int = 0


class TurnLoop:
    """Runs turns for one incarnation of a worker, in one thread."""

    def __init__(
        self, database: Database, clock: DatabaseClock, worker_id: int, queues: Sequence[str], *, workflows: bool,
        pool: ActivityPool | None, mailbox: queue.SimpleQueue[object], cache_size: int, watch: StepWatch,
        committer: Committer,
    ) -> None:  # fmt: skip
        self.database, self.clock, self.worker_id, self.queues = database, clock, worker_id, set(queues)
        self.workflows, self.pool, self.mailbox, self.watch = workflows, pool, mailbox, watch
        self.cache = StickyCache(cache_size)
        self.finder = Finder(database, clock, worker_id, queues, self.cache, pool, workflows=workflows)
        self.committer = committer
        self.statistics = Statistics()
        self.draining = False
        self._results: list[AttemptResult] = []
        self._timers: list[tuple[float, int, int, int]] = []  # fire time, tie break, chain, command
        self._order = itertools.count()
        self._ready: dict[int, Held] = {}  # held instances with inputs or an uncommitted step
        self._strays: list[Outcome] = []  # results whose instance has left memory before reading them
        self._promised = 0  # eager activities of the turn that is being stepped
        self._remote: set[TaskKey] = set()  # running tasks of instances that are not held here
        self._remote_check_due = 0.0

    # One turn

    def turn(self) -> bool:
        """Do one turn; return whether there was anything to do."""
        batch = TurnBatch()
        self._collect(batch)
        self._step(batch)
        if not batch:
            return False
        self._commit_and_dispatch(batch)
        self.statistics.turns += 1
        return True

    def wait(self, until: float) -> None:
        """Sleep until a result or a hint arrives, a timer or poll is due, or `until`."""
        deadlines = [until]
        if not self.draining:
            deadlines.append(self.finder.due)
        if self._timers:
            deadlines.append(time.monotonic() + self._timers[0][0] - self.clock.time())
        if self.pool is not None and (deadline := self.pool.next_deadline()) is not None:
            deadlines.append(deadline)
        deadlines += [held.not_before for held in self._ready.values()]
        timeout = min(deadlines) - time.monotonic()
        try:
            self._receive(self.mailbox.get(timeout=timeout) if timeout > 0 else self.mailbox.get_nowait())
        except queue.Empty:
            pass

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, runs or is unfinished in this process."""
        return (
            not self._ready
            and not self._results
            and not self._strays
            and not (self.pool and len(self.pool))
            and self.mailbox.empty()
        )

    def _receive(self, message: object) -> None:
        if isinstance(message, AttemptResult):
            self._results.append(message)
        else:
            self.finder.hint()

    # Collect

    def _collect(self, batch: TurnBatch) -> None:
        while True:
            try:
                self._receive(self.mailbox.get_nowait())
            except queue.Empty:
                break
        if self.pool is not None:
            self.pool.expire()
            self._give_back(batch, self.pool.take_back(0.0 if self.draining else _STALE_BACKLOG))
        batch.outcomes, self._strays = self._strays, []
        results, self._results = self._results, []
        for result in results:
            self._take_result(batch, result)
        self._check_remote()
        if time.monotonic() >= self.finder.due and not self.draining:
            self._take_findings(batch, self.finder.poll())
        self._fire_timers()

    def _take_findings(self, batch: TurnBatch, findings: Findings) -> None:
        for row in findings.for_held:
            held = self.cache.get(row.chain)
            if held is not None:
                self._guarded(held, lambda held=held, row=row: stepping.take_inbox(held, [row]))  # type: ignore[misc]
        room = max(64, self.cache.size - len(self._ready))
        random.shuffle(findings.candidates)
        batch.claim_instances = findings.candidates[:room]
        batch.claim_tasks = findings.tasks
        if findings.adopted:
            self._load(findings.adopted)

    def _take_result(self, batch: TurnBatch, result: AttemptResult) -> None:
        task = result.task
        self._remote.discard(task.key)
        self.statistics.attempts += 1
        if result.is_recorded:
            self.finder.hint()
            return
        if result.error is not None and (retry := self._retry(task, result.error)) is not None:
            batch.retries.append(retry)
            return
        event: ev.ResultEvent
        if result.error is not None:
            event = ev.ActivityFailed(command=task.key.command, failure=Failure.of(result.error))
        else:
            assert result.result is not None
            event = ev.ActivityCompleted(task.key.command, ev.Raw(result.result))
        self._deliver(batch, task, event)

    def _deliver(self, batch: TurnBatch, task: ClaimedTask, event: ev.ResultEvent) -> None:
        """Give an outcome to the instance if it is held here, else send it to its inbox."""
        held = self.cache.get(task.chain)
        if held is not None and held.chain.instance == task.key.instance:
            held.inputs.append(Input(event, task=task))
            self._ready[held.chain.chain] = held
        else:
            batch.outcomes.append(Outcome(task, event))

    def _retry(self, task: ClaimedTask, error: BaseException) -> Retry | None:
        policy = RetryPolicy.from_json(task.options["retry"])
        if not policy.may_retry(error, task.attempt):
            return None
        available_at = self.clock.now() + policy.delay_after(task.attempt, random.Random())
        if task.expires_at is not None and available_at >= task.expires_at:
            return None
        logger.info(
            "%s of %s failed (attempt %s), next try at %s: %s: %s", task.name, task.instance_id, task.attempt,
            available_at.isoformat(timespec="seconds"), type(error).__name__, error,
        )  # fmt: skip
        return Retry(task, available_at, Failure.of(error))

    def _give_back(self, batch: TurnBatch, tasks: list[ClaimedTask]) -> None:
        now = self.clock.now()
        batch.retries += [Retry(task, now, None, counts=False) for task in tasks]

    def _check_remote(self) -> None:
        """Cancel the running tasks of instances held elsewhere whose rows are gone or leased to somebody else."""
        if self.pool is None or not self._remote or time.monotonic() < self._remote_check_due:
            return
        self._remote_check_due = time.monotonic() + 1.0
        for key in self._remote - find_still_leased(self.database, self.worker_id, self._remote):
            self._remote.discard(key)
            self.pool.cancel(key)

    def _fire_timers(self) -> None:
        now = self.clock.time()
        while self._timers and self._timers[0][0] <= now:
            _, _, chain, command = heapq.heappop(self._timers)
            held = self.cache.get(chain)
            if held is not None:
                held.inputs.append(Input(ev.TimerFired(command)))
                self._ready[chain] = held

    # Step

    def _step(self, batch: TurnBatch) -> None:
        now = self.clock.now()
        for held in list(self._ready.values()):
            if held.uncommitted is not None:
                if held.not_before <= time.monotonic():
                    batch.steps.append(held.uncommitted)
            elif held.inputs:
                self._guarded(held, lambda held=held: batch.steps.append(self._step_one(held, now)))  # type: ignore[misc]
            if (step := held.uncommitted) is not None and step.blocked is not None and step not in batch.steps:
                batch.steps.append(step)
        for held in self.cache.surplus():
            if held.chain.chain not in self._ready:
                batch.releases.append(held.chain)

    def _step_one(self, held: Held, now: datetime) -> InstanceStep:
        inputs = held.inputs[:_MOST_INPUTS]
        recorded, used = stepping.step(held, inputs, now, self.watch)
        held.stepped, held.inputs = inputs[:used], held.inputs[used:]
        step = InstanceStep(
            held.chain,
            recorded,
            consumed=[entry.inbox for entry in held.stepped if entry.inbox is not None],
            finished=[entry.task.key.command for entry in held.stepped if entry.task is not None],
        )
        if recorded.closing is not None:
            assert held.machine is not None
            step.abandoned = list(held.machine.open_commands())
        else:
            self._choose_eager(step)
            step.release = self.cache.size == 0 and not held.inputs
        held.uncommitted = step
        self.statistics.steps += 1
        return step

    def _choose_eager(self, step: InstanceStep) -> None:
        """Pick the scheduled activities that this worker will run itself: inserted leased, never looked for."""
        if self.pool is None or self.draining:
            return
        for event in step.step.events:
            if isinstance(event, ev.ActivityScheduled) and event.queue in self.queues:
                definition = registry.activities.get(event.name)
                if definition is None or not definition.is_available:
                    continue
                if self.pool.room(is_async=definition.is_async) > self._promised:
                    self._promised += 1
                    step.eager.add(event.command)

    def _guarded(self, held: Held, action: object) -> None:
        """Run a part of an instance's step; whatever goes wrong there blocks that instance and nothing else."""
        try:
            action()  # type: ignore[operator]
        except Exception as error:
            self._block(held, error)
        if not held.is_idle:
            self._ready[held.chain.chain] = held

    def _block(self, held: Held, error: BaseException) -> None:
        chain = held.chain
        delay = min(2.0**chain.blocks, 60.0)
        logger.error(
            "%s %r is blocked, next try in %g s: %s: %s", chain.info.workflow, chain.info.instance_id, delay,
            type(error).__name__, error,
        )  # fmt: skip
        now = self.clock.now()
        held.uncommitted = InstanceStep(
            chain, Step(time=now), blocked=Failure.of(error), retry_at=now + timedelta(seconds=delay)
        )
        held.not_before = 0.0

    # Commit and dispatch

    def _commit_and_dispatch(self, batch: TurnBatch) -> None:
        self._promised = 0
        result = self.committer.commit(batch)
        for step in result.busy:
            held = self.cache.get(step.chain.chain)
            if held is not None:
                held.not_before = time.monotonic() + _BUSY_PAUSE
                self._ready[held.chain.chain] = held
        for step in result.lost:
            self._drop(step.chain.chain)
        for chain in batch.releases:
            self._drop(chain.chain)
        for step in result.committed:
            self._dispatch(step)
        self._load(result.claimed_instances)
        for task in result.claimed_tasks:
            self._run_task(task)
        if result.claimed_instances or result.claimed_tasks:
            self.finder.hint()

    def _drop(self, chain: int) -> None:
        held = self.cache.get(chain)
        self._ready.pop(chain, None)
        if held is not None:
            for entry in held.unread_results():
                assert entry.task is not None and isinstance(entry.event, ev.ResultEvent)
                self._strays.append(Outcome(entry.task, entry.event))
            self.cache.drop(held)

    def _dispatch(self, step: InstanceStep) -> None:
        """Do what a committed step allows: start its activities, arm its timers, forget what is closed."""
        held = self.cache.get(step.chain.chain)
        if held is None:
            return
        if step.blocked is None:
            held.stepped = []
        if step.blocked is not None or step.step.closing is not None or step.release:
            self._dispatch_events(step)
            if step.step.closing is not None:
                self.statistics.closed += 1
                self._cancel_abandoned(step)
                self.finder.hint()
            self._drop(step.chain.chain)
            return
        held.uncommitted = None
        held.chain.history_length += len(step.step.events)
        held.chain.crashes = held.chain.blocks = 0
        held.seen.difference_update(step.consumed)
        if held.is_idle:
            self._ready.pop(held.chain.chain, None)
        else:
            self._ready[held.chain.chain] = held
        self.cache.touch(held)
        self._dispatch_events(step)

    def _dispatch_events(self, step: InstanceStep) -> None:
        chain = step.chain
        cancelled = {event.command for event in step.step.events if isinstance(event, ev.ActivityCancelled)}
        for event in step.step.events:
            match event:
                case ev.ActivityScheduled() if event.command in step.eager and event.command not in cancelled:
                    self._run_task(_eager_task(step, event))
                case ev.ActivityScheduled():
                    self.finder.hint()
                case ev.TimerStarted():
                    self._arm(chain.chain, event)
                case ev.ActivityCancelled() if self.pool is not None:
                    self.pool.cancel(TaskKey(chain.instance, event.command))
                case ev.ChildScheduled() | ev.ChildCancelRequested():
                    self.finder.hint()

    def _cancel_abandoned(self, step: InstanceStep) -> None:
        if self.pool is not None:
            for event in step.abandoned:
                if isinstance(event, ev.ActivityScheduled):
                    self.pool.cancel(TaskKey(step.chain.instance, event.command))

    def _arm(self, chain: int, event: ev.TimerStarted) -> None:
        heapq.heappush(self._timers, (event.fire_at.timestamp(), next(self._order), chain, event.command))

    def _run_task(self, task: ClaimedTask) -> None:
        """Start an attempt, or fail an activity whose permitted attempts all ended with their workers."""
        assert self.pool is not None
        definition = registry.activities.get(task.name)
        policy = RetryPolicy.from_json(task.options["retry"]) if task.crashes > 1 else None
        if policy is not None and (
            task.crashes > get_settings().crash_limit
            or (policy.max_attempts is not None and task.attempt > policy.max_attempts)
        ):
            error = WorkerLost(
                f"{task.name}: the worker that ran attempt {task.attempt - 1} died, and no attempt is left"
            )
            self._results.append(AttemptResult(task, error=error))
            return
        assert definition is not None
        if self.cache.get(task.chain) is None:
            self._remote.add(task.key)
        self.pool.submit(task, definition)

    def _load(self, keys: list[str]) -> None:
        """Bring claimed instances into memory; one that cannot run is blocked, the others are not concerned."""
        for loaded in claims.load_instances(self.database, keys):
            if self.cache.get(loaded.chain.chain) is not None:
                continue
            try:
                held = stepping.build(loaded, self.watch)
            except Exception as error:
                held = Held(loaded.chain, None)
                self.cache.add(held)
                self._block(held, error)
                self._ready[held.chain.chain] = held
                continue
            self.cache.add(held)
            for event in held.machine.open_commands():
                if isinstance(event, ev.TimerStarted):
                    self._arm(held.chain.chain, event)
            if loaded.chain.blocks and not held.inputs:
                held.uncommitted = InstanceStep(held.chain, Step(time=self.clock.now()))
            if not held.is_idle:
                self._ready[held.chain.chain] = held


def _eager_task(step: InstanceStep, event: ev.ActivityScheduled) -> ClaimedTask:
    chain = step.chain
    limit = event.options.get("schedule_to_close")
    return ClaimedTask(
        key=TaskKey(chain.instance, event.command), chain=chain.chain, name=event.name, queue=event.queue,
        workflow_queue=chain.queue, attempt=1, crashes=0, scheduled_at=step.step.time,
        expires_at=step.step.time + timedelta(seconds=limit) if limit is not None else None, options=event.options,
        input=bytes(event.input), instance_id=chain.info.instance_id, execution_id=chain.info.execution_id,
    )  # fmt: skip

"""The loop of turns: collect, step, commit, dispatch.

One commit carries what happened to many instances since the last one; what arrives during a commit is the next turn's.
"""

from __future__ import annotations

import logging
import math
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django_workflows import registry
from django_workflows.engine import events as ev
from django_workflows.engine.steps import Step
from django_workflows.store import claims, leftovers
from django_workflows.store.database import Database
from django_workflows.store.work import (
    ClaimedTask,
    Deferral,
    InstanceStep,
    LoadedInstance,
    Message,
    OpenChain,
    Outcome,
    Retry,
    TaskKey,
    TurnBatch,
)

from . import stepping
from .activities import ActivityPool
from .attempts import Attempts
from .budget import rest_of_blocked
from .children import start_children
from .clock import DatabaseClock
from .committer import Committer
from .finder import Finder, Findings
from .guards import StepWatch
from .held import Held, Input, StickyCache
from .listener import Listener
from .running import AttemptResult
from .timers import TimerHeap

logger = logging.getLogger("django_workflows.worker")

_FEWEST_CLAIMS = 64  # instances claimed at a time however full the cache is
_BUSY_PAUSE = 0.02  # before a step whose rows were locked is offered again
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
        committer: Committer, listener: Listener, announce: Callable[[], None],
    ) -> None:  # fmt: skip
        self.database, self.clock, self.mailbox, self.watch, self.committer = database, clock, mailbox, watch, committer
        self.listener = listener
        self._announce = announce
        self.cache = StickyCache(cache_size)
        self.finder = Finder(database, clock, worker_id, queues, self.cache, pool, workflows=workflows)
        self.attempts: Attempts | None = None
        if pool is not None:
            self.attempts = Attempts(database, clock, worker_id, set(queues), pool, mailbox.put)
        self.statistics = Statistics()
        self.draining = False
        self._timers = TimerHeap()
        self._ready: dict[int, Held] = {}  # held instances with inputs or an uncommitted step
        self._results: list[AttemptResult] = []
        self._strays: list[Outcome] = []  # results whose instance has left memory before reading them
        self._batch = TurnBatch()  # kept when a poll fails: it may hold results already

    # One turn

    def turn(self) -> bool:
        """Do one turn; return whether there was anything to do."""
        batch = self._batch
        self._collect(batch)
        self._step(batch)
        if not batch:
            return False
        result = self.committer.commit(batch)
        self._batch = TurnBatch()
        self._sort_out(batch.releases, result.busy, result.lost)
        for step in result.committed:
            self._dispatch(step)
        self._run_tasks(result.claimed_tasks)
        self._load(result.claimed_instances)
        if result.claimed_instances or result.claimed_tasks:
            self.finder.hint()
        if result.unleased or any(self._is_for_others(message) for message in result.sent):
            self._announce()
        self.statistics.turns += 1
        return True

    def wait(self, until: float) -> None:
        """Sleep until a result or a hint arrives, or the next turn is due, or `until`."""
        due = min(until, self.next_due())
        while (left := due - time.monotonic()) > 0:
            try:
                interval = self.listener.interval
                self._receive(self.mailbox.get(timeout=left if interval is None else min(left, interval)))
                return
            except queue.Empty:
                if self.listener.heard():
                    self.finder.hint()
                    return

    def next_due(self) -> float:
        """Return the monotonic time of the next turn: a timer, a poll, a timeout, a step to offer again."""
        deadlines = [math.inf if self.draining else self.finder.due]
        if self._timers.next_due is not None:
            deadlines.append(time.monotonic() + self._timers.next_due - self.clock.time())
        if self.attempts is not None:
            deadlines.append(self.attempts.pool.next_deadline())
        return min([*deadlines, *(held.due for held in self._ready.values())])

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, runs or is unfinished in this process."""
        running = self.attempts is not None and len(self.attempts)
        waiting = self._ready or self._results or self._strays or self._batch or running
        return not waiting and self.mailbox.empty()

    def _receive(self, message: object) -> None:
        if isinstance(message, AttemptResult):
            self._results.append(message)
        else:
            self.finder.hint()

    # Collect

    def _collect(self, batch: TurnBatch) -> None:
        while not self.mailbox.empty():
            self._receive(self.mailbox.get_nowait())
        if self.attempts is not None:
            self.attempts.pool.expire()
            self.attempts.check_wanted()
            batch.retries += self.attempts.take_back(draining=self.draining)
            batch.heartbeats += self.attempts.take_heartbeats()
        batch.outcomes += self._strays
        self._strays = []
        results, self._results = self._results, []
        for result in results:
            self._take_result(batch, result)
        self._fire_timers()
        self._start_children()
        if time.monotonic() >= self.finder.due and not self.draining:
            self._take_findings(batch, self.finder.poll(self._room()))

    def _take_findings(self, batch: TurnBatch, findings: Findings) -> None:
        for row in findings.for_held:
            held = self.cache.get(row.chain)
            if held is not None:
                try:
                    stepping.take_inbox(held, [row])
                except Exception as error:
                    self._block(held, error)
                self._mark(held)
        batch.claim_instances = findings.candidates
        batch.claim_tasks = findings.tasks
        self._load(findings.adopted)

    def _room(self) -> int:
        """Return how many instances may be claimed without evicting one that has work under way here."""
        under_way = len(self._ready) + (0 if self.attempts is None else len(self.attempts))
        return max(_FEWEST_CLAIMS, self.cache.size - under_way)

    def _take_result(self, batch: TurnBatch, result: AttemptResult) -> None:
        assert self.attempts is not None
        self.statistics.attempts += 1
        if result.is_recorded:
            self.finder.hint()  # its row is in the inbox
            if self.cache.get(result.task.chain) is None:
                self._announce()
            return
        outcome = self.attempts.outcome(result)
        match outcome:
            case Retry():
                batch.retries.append(outcome)
            case Deferral():
                batch.deferrals.append(outcome)
            case _:
                self._take_outcome(batch, result, outcome)
                return
        if result.beat is not None:
            batch.heartbeats.append(self.attempts.heartbeat(result.task, result.beat))

    def _take_outcome(self, batch: TurnBatch, result: AttemptResult, outcome: ev.ResultEvent) -> None:
        task = result.task
        held = self.cache.get(task.chain)
        definition = registry.activities.get(task.name)
        # An atomic activity that failed at its COMMIT may have been recorded all the same: its row decides.
        doubtful = result.error is not None and definition is not None and definition.atomic
        if held is not None and held.chain.instance == task.key.instance and not doubtful:
            held.inputs.append(Input(outcome, task=task))
            self._mark(held)
        else:
            batch.outcomes.append(Outcome(task, outcome))

    def _fire_timers(self) -> None:
        for chain, key in self._timers.pop_due(self.clock.time()):
            held = self.cache.get(chain)
            if held is not None and held.chain.instance == key.instance:
                held.inputs.append(Input(ev.TimerFired(key.command)))
                self._mark(held)

    def _start_children(self) -> None:
        holders = [held for held in self._ready.values() if held.orders]
        if self.draining:
            for held in holders:  # the rows stay, for the next worker
                held.orders.clear()
                self._mark(held)
            return
        for held, name in start_children(self.database, holders):
            self._mark(held)
            self.finder.hint()  # the outcome is in the inbox
            if not self._claims(name):
                self._announce()

    def _mark(self, held: Held) -> None:
        """Keep the list of instances that have something to do."""
        if held.is_idle:
            self._ready.pop(held.chain.chain, None)
        else:
            self._ready[held.chain.chain] = held

    # Step

    def _step(self, batch: TurnBatch) -> None:
        now = self.clock.now()
        batch.steps, batch.releases = [], []  # those of a turn that failed are offered again below
        if self.attempts is not None:
            self.attempts.begin_turn()
        for held in list(self._ready.values()):
            if self.draining:
                held.has_more = False  # the rows stay, for the next worker
            self._mark(held)  # its inbox may have turned out to be read to the end
            if held.uncommitted is None and held.inputs:
                try:
                    held.uncommitted = self._step_one(held, now)
                except Exception as error:
                    # Whatever goes wrong in a step blocks this instance and no other.
                    self._block(held, error)
            if held.uncommitted is not None and held.not_before <= time.monotonic():
                batch.steps.append(held.uncommitted)
        if len(self.cache) > self.cache.size:
            running = set() if self.attempts is None else self.attempts.pool.chains()
            batch.releases = [held.chain for held in self.cache.surplus(running)]

    def _step_one(self, held: Held, now: datetime) -> InstanceStep:
        step = stepping.step(held, now, self.watch)
        if step.step.closing is None:
            step.release = self.cache.size == 0 and not (held.inputs or held.orders or held.has_more)
            if self.attempts is not None and not self.draining:
                self.attempts.choose_eager(step)
        self.statistics.steps += 1
        return step

    def _block(self, held: Held, error: BaseException) -> None:
        chain = held.chain
        rest = rest_of_blocked(chain.blocks)
        logger.error(
            "%s %r is blocked, next try in %g s: %s: %s", chain.info.workflow, chain.info.instance_id, rest,
            type(error).__name__, error,
        )  # fmt: skip
        held.uncommitted = stepping.blocked(chain, error, self.clock.now())
        held.not_before = 0.0

    # Dispatch, only after the commit

    def _sort_out(self, released: list[OpenChain], busy: list[InstanceStep], lost: list[InstanceStep]) -> None:
        for step in busy:
            held = self.cache.get(step.chain.chain)
            if held is not None:
                held.not_before = time.monotonic() + _BUSY_PAUSE
        for chain in [*released, *(step.chain for step in lost)]:
            self._drop(chain.chain)

    def _drop(self, chain: int) -> None:
        """Forget an instance; results that it has not committed go to its inbox."""
        held = self.cache.get(chain)
        self._ready.pop(chain, None)
        if held is not None:
            for entry in held.unread_results():
                assert entry.task is not None and isinstance(entry.event, ev.ResultEvent)
                self._strays.append(Outcome(entry.task, entry.event))
            stepping.drop(held, self.cache, self.watch)

    def forget_all(self) -> None:
        """Empty the memory at the end of this incarnation; the tables hold everything."""
        for held in self.cache:
            stepping.drop(held, self.cache, self.watch)

    def _dispatch(self, step: InstanceStep) -> None:
        """Do what a committed step allows: start its activities, arm its timers, forget what is closed."""
        held = self.cache.get(step.chain.chain)
        if held is None:
            return
        if step.blocked is None:
            held.stepped = []
        if step.blocked is not None or step.release or step.step.closing is not None:
            if step.step.closing is not None and (held.inputs or held.has_more):
                self.finder.look_back_soon()  # what it has closed without is for the next execution, or left over
            self._drop(step.chain.chain)
        else:
            held.uncommitted = None
            held.chain.history_length += len(step.step.events)
            held.chain.crashes = held.chain.blocks = 0
            held.seen.difference_update(step.consumed)
            self.cache.touch(held)
            self._mark(held)
            if held.has_more and not held.inputs:
                self.finder.hint()
        self._dispatch_events(step)

    def _dispatch_events(self, step: InstanceStep) -> None:
        chain = step.chain
        cancelled = {event.command for event in step.step.events if isinstance(event, ev.ActivityCancelled)}
        for event in step.step.events:
            match event:
                case ev.ActivityScheduled() if event.command in step.eager and event.command not in cancelled:
                    assert self.attempts is not None
                    self.attempts.start_eager(step, event)
                case ev.TimerStarted():
                    self._timers.arm(chain, event)
                case ev.ActivityScheduled() | ev.ChildScheduled() | ev.ChildCancelRequested():
                    self.finder.hint()
                case ev.ClosingEvent():
                    self.statistics.closed += 1
                    self.finder.hint()
        if self.attempts is not None:
            for command in cancelled.union(e.command for e in step.abandoned if isinstance(e, ev.ActivityScheduled)):
                self.attempts.cancel(TaskKey(chain.instance, command))

    def _is_for_others(self, message: Message) -> bool:
        """Tell whether another worker may be waiting for an inbox row that was committed."""
        return not self._claims(message.queue) if message.is_start else self.cache.get(message.chain) is None

    def _claims(self, queue: str) -> bool:
        """Tell whether this worker claims the instances that start in a queue."""
        return self.finder.workflows and queue in self.finder.queues and not self.draining

    def _run_tasks(self, tasks: list[ClaimedTask]) -> None:
        for task in tasks:
            assert self.attempts is not None
            self.attempts.start(task)

    # Load

    def _load(self, keys: list[str]) -> None:
        """Bring owned instances into memory; one that cannot run is blocked, the others are not concerned."""
        found = claims.load_instances(self.database, keys)
        leftovers.collect_open(self.database, set(keys) - {loaded.chain.open_key for loaded in found})
        for loaded in found:
            if self.cache.get(loaded.chain.chain) is None:
                held = self._build(loaded)
                self.cache.add(held)
                self._mark(held)

    def _build(self, loaded: LoadedInstance) -> Held:
        try:
            held = stepping.build(loaded, self.watch)
        except Exception as error:
            held = Held(loaded.chain, None)
            self._block(held, error)
            return held
        assert held.machine is not None
        for event in held.machine.open_commands():
            if isinstance(event, ev.TimerStarted):
                self._timers.arm(held.chain, event)
        if loaded.chain.blocks and not held.inputs:
            # The code that was missing is there: an empty step says that the instance runs again.
            held.uncommitted = InstanceStep(held.chain, Step(time=self.clock.now()))
        return held

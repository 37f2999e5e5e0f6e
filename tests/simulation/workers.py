"""Simulated workers: the real thing, without threads, one action at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import connections

from django_workflows.exceptions import StepTimeLimitExceeded
from django_workflows.models import ActivityTask, HistoryEvent, OpenInstance, Timer
from django_workflows.models import Worker as WorkerRow
from django_workflows.store import leftovers
from django_workflows.store.workers import WorkerFenced
from django_workflows.worker.activities import ActivityPool
from django_workflows.worker.guards import StepWatch
from django_workflows.worker.worker import Incarnation, Worker, WorkerOptions

from . import journal
from .world import Actor, Crash, Violation, World

T = TypeVar("T")

_LAST_EVENT = f"SELECT coalesce(max(rowid), 0) FROM {HistoryEvent._meta.db_table}"
_NEW_EVENTS = f"SELECT instance_id, sequence, type FROM {HistoryEvent._meta.db_table} WHERE rowid > ? ORDER BY rowid"
# Tasks and timers of commands whose outcome was recorded, and of executions that were closed, in this transaction.
_LEFT = " UNION ALL ".join(
    f"SELECT t.instance_id, t.command FROM {HistoryEvent._meta.db_table} h "
    f"JOIN {model._meta.db_table} t ON t.instance_id = h.instance_id "
    f"WHERE h.rowid > ?1 AND (h.type IN ({outcomes}) AND t.command = json_extract(h.data, '$.command') "
    f"OR h.type IN ('InstanceCompleted', 'InstanceFailed', 'InstanceCancelled', 'InstanceContinuedAsNew'))"
    for model, outcomes in (
        (ActivityTask, "'ActivityCompleted', 'ActivityFailed', 'ActivityCancelled'"),
        (Timer, "'TimerFired', 'TimerCancelled'"),
    )
)
_DEAD = f"SELECT 1 FROM {WorkerRow._meta.db_table} WHERE id = ? AND state = 'dead'"


class SimulatedPool(ActivityPool):
    """Runs an attempt when it is told to, in the calling thread."""

    def start(self) -> None:
        self.running = 0

    @property
    def may_run(self) -> bool:
        return self.running < self.threads and not self._queue.empty()

    def run_next(self) -> None:
        attempt = self._queue.get_nowait()
        if attempt is not None and attempt.begin():
            self.running += 1
            try:
                self._complete(attempt)
            finally:
                self.running -= 1


class SimulatedWatch(StepWatch):
    """Finds steps too slow at random, which blocks their instances."""

    def __init__(self, world: World) -> None:
        super().__init__(limit=3600.0)
        self._world = world

    def call(self, label: str, function: Callable[[], T]) -> T:
        draw = self._world.random.random() if self._world.is_hostile else 1.0
        if draw < self._world.slow_rate:
            # What is not disposed of would warn of it much later, in a test of somebody else.
            if draw < self._world.slow_rate / 2 or label.endswith("leaving memory"):
                function()
            raise StepTimeLimitExceeded(f"{label}: slow at random")
        return function()


class VirtualPause:
    """Stands for the event on which a worker waits out trouble with its database."""

    def __init__(self, world: World) -> None:
        self._world = world

    def wait(self, seconds: float) -> bool:
        self._world.stand_still(seconds)
        return False

    def is_set(self) -> bool:
        return False


class SimulatedWorker(Actor):
    """One process: its turns, its activities, and its end."""

    def __init__(self, world: World, number: int) -> None:
        draw = world.random
        super().__init__(f"worker {number}", offset=draw.uniform(0, 1000), rate=draw.uniform(0.97, 1.03))
        does = draw.choices(("all", "workflows", "activities"), (8, 1, 1))[0]
        self.does_all = does == "all"
        options = WorkerOptions(
            threads=draw.randint(1, 3), sticky_cache_size=draw.choice((0, 1, 2, 50)),
            workflows=does != "activities", activities=does != "workflows",
        )  # fmt: skip
        self.world = world
        self.worker: Any = Worker(options)
        self.worker._outage.abort = VirtualPause(world)
        self.incarnation: Incarnation | None = None
        self.in_turn = False
        self.is_leaving = False
        self._frames = 0  # of this process on the stack: a crash ends them first
        self._last_event = 0  # when its transaction began

    @property
    def may_turn(self) -> bool:
        return not self.in_turn and not self.is_frozen

    @property
    def may_run(self) -> bool:
        pool = self._pool
        return pool is not None and pool.may_run and not self.is_frozen

    @property
    def is_frozen(self) -> bool:
        return self.is_dead or self.world.now < self.frozen_until

    @property
    def _pool(self) -> SimulatedPool | None:
        pool = None if self.incarnation is None else self.incarnation.pool
        assert pool is None or isinstance(pool, SimulatedPool)
        return pool

    def due(self) -> float:
        """Return when the next turn is due, in the world's time."""
        if self.incarnation is None or not self.worker._mailbox.empty():
            return self.world.now
        with self.world.acting(self):
            due = min(self.incarnation.loop.next_due(), self.incarnation.upkeep.next_due)
        return max(self.frozen_until, self.world_time(due))

    # Actions

    def turn(self) -> bool:
        """Do upkeep and a turn; return whether there was anything to do."""
        busy = False
        self.in_turn = True
        with self._frame():
            try:
                if self.incarnation is None:
                    self.incarnation = self.worker._begin(SimulatedWatch(self.world))
                    self.world.note("worker begins", f"as {self.worker.id}")
                busy = self._turn(self.incarnation)
            except WorkerFenced:
                self.world.note("fenced", f"as {self.worker.id}")
                self._end()
            except Violation:
                raise
            except Exception as error:
                raise Violation(f"{self.name} met an unexpected error: {error!r}") from error
            finally:
                self.in_turn = False
        return busy

    def _turn(self, incarnation: Incarnation) -> bool:
        before = {held.chain.chain for held in incarnation.loop.cache}
        busy = incarnation.attempt()
        gone = before.difference(held.chain.chain for held in incarnation.loop.cache)
        if gone and self.world.random.random() < 0.5:
            self._note_evictions(gone)
        if self.is_leaving and incarnation.loop.is_idle:
            self.worker._leave(incarnation)
            self.world.note("worker leaves")
            self.is_dead = True
        return busy

    def _note_evictions(self, gone: set[int]) -> None:
        chains = ", ".join(map(str, sorted(gone)))
        found = connections["default"].raw(  # type: ignore[attr-defined]
            f"SELECT chain_id FROM {OpenInstance._meta.db_table} WHERE chain_id IN ({chains}) AND owner_id IS NULL "
            "AND blocks = 0 AND history_length > 0"
        )
        for (chain,) in found:
            self.world.note("eviction", f"of chain {chain}")

    def run_activity(self) -> None:
        with self._frame():
            assert self._pool is not None
            self.fragility = 8.0  # few borders of transactions, and a race at each
            try:
                self._pool.run_next()
            finally:
                self.fragility = 1.0

    def leave(self) -> None:
        """Stop in good order: take nothing new, finish what runs."""
        self.is_leaving = True
        if self.incarnation is not None:
            self.incarnation.loop.draining = True

    def crash(self) -> None:
        self.world.note("crash", f"of {self.name}")
        with self._frame():
            raise Crash

    def sweep(self) -> bool:
        """Collect what is left of closed instances, as each worker does every minute; return whether there was any."""
        with self._frame():
            return leftovers.sweep(self.worker.database) > 0

    def vanish(self) -> None:
        """End at the end of the simulation."""
        self.is_dead = True
        self._end()

    @property
    def is_on_stack(self) -> bool:
        return self._frames > 0

    @contextmanager
    def _frame(self) -> Iterator[None]:
        self._frames += 1
        try:
            with self.world.acting(self):
                yield
        except Crash:
            self.is_dead = True
        finally:
            self._frames -= 1
            if self.is_dead and not self._frames:
                self._end()

    def _end(self) -> None:
        if self.incarnation is not None:
            self.incarnation.end()
            self.incarnation = None

    # What it records

    def begins(self) -> None:
        connection: Any = connections["default"]
        self._last_event = connection.raw(_LAST_EVENT)[0][0]

    def lands(self) -> None:
        connection: Any = connections["default"]
        if freed := connection.raw(journal.FREED, [self.worker.id]):
            raise Violation(f"{self.name} freed tasks that are not its own: {freed}")
        events = connection.raw(_NEW_EVENTS, [self._last_event])
        if events:
            self.world.say("records " + ", ".join(f"{pk}/{number} {type}" for pk, number, type in events))
            if connection.raw(_DEAD, [self.worker.id]):
                raise Violation(f"{self.name} was declared dead as {self.worker.id}, and recorded events")
            if left := connection.raw(_LEFT, [self._last_event]):
                raise Violation(f"{self.name} left tasks or timers of commands that have an outcome: {left}")

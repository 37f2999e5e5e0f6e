"""The worker: registers itself, runs turns and upkeep until it is stopped, drains, and retires."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from django_workflows import wakeups
from django_workflows.conf import get_settings
from django_workflows.store import leftovers, workers
from django_workflows.store.database import Database
from django_workflows.store.work import TurnBatch
from django_workflows.store.workers import WorkerFenced
from django_workflows.wakeups.announcer import one_line

from .activities import ActivityPool
from .clock import DatabaseClock
from .committer import Committer
from .guards import StepWatch, install_audit_hook
from .lease import Upkeep
from .listener import Listener, listener_for
from .loop import WAKE, TurnLoop
from .outage import DATABASE_ERRORS, Interrupted, Outage

logger = logging.getLogger("django_workflows.worker")

_PAUSE_AFTER_ERROR = 1.0
_LAST_WORDS = 2.0  # seconds beyond the grace period for what is written at the end, if the database fails
_LONGEST_SQLITE_PAUSE = 0.002  # between busy turns, else as long as the last: others get the one write lock


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker runs; None takes the setting."""

    queues: Sequence[str] = ()
    threads: int | None = None
    workflows: bool = True
    activities: bool = True
    sticky_cache_size: int | None = None
    lease: timedelta | None = None
    burst: bool = False
    version: str = ""
    grace: timedelta | None = field(default=None)


@dataclass(frozen=True)
class Incarnation:
    """What serves one worker row, from its registration to its end."""

    upkeep: Upkeep
    outage: Outage
    committer: Committer
    loop: TurnLoop
    pool: ActivityPool | None
    listener: Listener

    def attempt(self) -> bool:
        """Do upkeep and a turn, and return whether there was anything to do; a database that fails is waited for."""
        try:
            self.upkeep.tick()
            busy = self.loop.turn()
        except DATABASE_ERRORS as error:
            self.outage.wait(error)
            return False
        self.outage.end()
        return busy

    def end(self) -> None:
        """Leave the tables alone, and everything else as it was."""
        self.listener.stop()
        if self.pool is not None:
            self.pool.stop()
        self.loop.forget_all()


class Worker:
    """Runs workflows and activities from some queues until `stop()`.

    `run()` blocks its thread, which does all turns; `stop()` and `wake()` may be called from anywhere.
    """

    def __init__(self, options: WorkerOptions, database: Database | None = None) -> None:
        settings = get_settings()
        self.options = options
        self.database = database or Database()
        self.queues = list(options.queues) or [settings.default_queue]
        self.threads = options.threads or settings.threads
        self.lease = options.lease or settings.lease
        self.grace = settings.shutdown_grace if options.grace is None else options.grace
        size = options.sticky_cache_size
        self.cache_size = settings.sticky_cache_size if size is None else size
        self.ready = threading.Event()
        self.stopped = threading.Event()
        self.id = 0
        self._mailbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stopping = False
        self._exit_now = threading.Event()
        self._outage = Outage(self.database, self._exit_now)
        self._loop: TurnLoop | None = None

    def wake(self) -> None:
        """Make the worker look for work now."""
        self._mailbox.put(WAKE)

    def stop(self) -> None:
        """Ask the worker to drain and return; the second call makes it leave running activities behind."""
        if self._stopping:
            self._exit_now.set()
        self._stopping = True
        self._outage.give_up_after(self.grace.total_seconds() + _LAST_WORDS)
        self._mailbox.put(WAKE)

    def run(self) -> None:
        """Work until stopped; with `burst`, until there is nothing left to do now."""
        install_audit_hook()
        watch = StepWatch(get_settings().step_time_limit)
        watch.start()
        try:
            with wakeups.local(self.wake):
                self._run_incarnations(watch)
        finally:
            watch.stop()
            self.database.discard_connection()
            self.stopped.set()

    def _run_incarnations(self, watch: StepWatch) -> None:
        while not self._stopping:
            try:
                self._run_incarnation(watch)
            except WorkerFenced:
                logger.error("worker %s was declared dead by others; it starts over as a new one", self.id)
                continue
            except Interrupted:
                if self.id:
                    logger.warning("worker %s leaves while the database fails; its lease has to run out", self.id)
                return
            except Exception:
                # A bug of ours. What this incarnation held is replayed from the tables by the next one.
                logger.exception("worker %s met an unexpected error; it starts over as a new one", self.id)
                self._give_up()
                continue
            if self.options.burst:
                return

    def _give_up(self) -> None:
        """Retire after an unexpected error, and pause, so that an error that repeats does not burn a core."""
        self._retire()
        self._exit_now.wait(_PAUSE_AFTER_ERROR)

    def _retire(self) -> None:
        """End this incarnation in the tables, and tell others to look what they can take over."""
        try:
            workers.retire(self.database, self.id)
            workers.hand_back(self.database)
        except DATABASE_ERRORS as error:
            # They find out by themselves, only later.
            logger.warning("worker %s cannot retire, its lease has to run out: %s", self.id, one_line(error))
            self.database.discard_connection()
        self._announce()

    def _announce(self) -> None:
        """Tell the workers of other processes that there is work."""
        wakeups.announce(self.database.alias, str(self.id))

    def _announce_to_all(self) -> None:
        self.wake()
        self._announce()

    # One incarnation: a worker row from registration to death

    def _run_incarnation(self, watch: StepWatch) -> None:
        incarnation = self._begin(watch)
        self._loop = incarnation.loop
        self.ready.set()
        try:
            self._serve(incarnation)
            self._drain(incarnation)
        finally:
            incarnation.end()

    def _begin(self, watch: StepWatch) -> Incarnation:
        """Register, and build what serves the new row."""
        # Its own mailbox: what the pool of a fenced incarnation still reports is nobody's.
        self._mailbox = queue.SimpleQueue()
        clock = DatabaseClock()
        pool: ActivityPool | None = None
        self._register(clock)
        upkeep = Upkeep(self.database, clock, self.id, self.lease, self._announce_to_all)
        self._outage.on_failure = upkeep.forget_observations
        committer = Committer(self.database, self.id, self.lease, self._outage)
        listener = listener_for(self.database, str(self.id), self.wake)
        if self.options.activities:
            pool = ActivityPool(self.database, self.id, self.threads, self._mailbox.put)
            pool.start()
        loop = TurnLoop(
            self.database, clock, self.id, self.queues, workflows=self.options.workflows, pool=pool,
            mailbox=self._mailbox, cache_size=self.cache_size, watch=watch, committer=committer,
            listener=listener, announce=self._announce,
        )  # fmt: skip
        return Incarnation(upkeep, self._outage, committer, loop, pool, listener)

    def _register(self, clock: DatabaseClock) -> None:
        while True:
            try:
                self.database.prepare_worker_session(self.lease.total_seconds())
                clock.synchronise(self.database)
                slots = self.threads if self.options.activities else 0
                self.id = workers.register(
                    self.database, queues=self.queues, slots=slots, lease=self.lease, version=self.options.version
                )
                leftovers.wake_blocked(self.database, clock.now())
            except DATABASE_ERRORS as error:
                self._outage.wait(error)
                if self._stopping:
                    raise Interrupted from error
            else:
                self._outage.end()
                logger.info("worker %s ready on %s, %s threads", self.id, ", ".join(self.queues), self.threads)
                return

    def _serve(self, incarnation: Incarnation) -> None:
        loop = incarnation.loop
        is_sqlite = self.database.connection.vendor == "sqlite"
        quiet_since: float | None = None
        while not self._stopping:
            began = time.monotonic()
            busy = incarnation.attempt()
            if busy:
                quiet_since = None
                if is_sqlite:
                    time.sleep(min(time.monotonic() - began, _LONGEST_SQLITE_PAUSE))
                continue
            if self.options.burst and loop.is_idle:
                # Two empty polls some time apart: a row that committed late is found by the second.
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > 0.3:
                    return
                loop.finder.hint()
                time.sleep(0.05)
                continue
            loop.wait(incarnation.upkeep.next_due)

    def _drain(self, incarnation: Incarnation) -> None:
        """Finish what runs, within the grace period; then free what is owned and retire."""
        loop = incarnation.loop
        loop.draining = True
        ends = time.monotonic() + self.grace.total_seconds()
        running = 0 if loop.attempts is None else len(loop.attempts)
        if running:
            logger.info(
                "worker %s stops; %s running activities have %g s to finish",
                self.id,
                running,
                self.grace.total_seconds(),
            )
        while not loop.is_idle and time.monotonic() < ends and not self._exit_now.is_set():
            if not incarnation.attempt():
                loop.wait(min(ends, time.monotonic() + 0.2))
        self._leave(incarnation)

    def _leave(self, incarnation: Incarnation) -> None:
        """Free what this incarnation owns, and retire it."""
        loop = incarnation.loop
        if not self._exit_now.is_set():
            incarnation.committer.commit(TurnBatch(releases=[held.chain for held in loop.cache]))
        self._retire()
        done = loop.statistics
        logger.info(
            "worker %s stopped after %s activities, %s steps in %s turns, %s instances closed",
            self.id, done.attempts, done.steps, done.turns, done.closed,
        )  # fmt: skip

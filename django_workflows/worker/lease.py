"""Upkeep between turns: the worker's own lease, other workers' lapsed ones, leftovers, deadlines, retention."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta

from django_workflows.conf import get_settings
from django_workflows.store import activities, leftovers, retention, workers
from django_workflows.store.database import Database

from .budget import rest_after
from .clock import DatabaseClock

logger = logging.getLogger("django_workflows.worker")


_EXPIRE_INTERVAL = 1.0  # seconds by which a timeout may be late, of an activity that waits for a worker
_PRUNE_INTERVAL = 5.0
_PRUNE_SECONDS = 0.25  # of each interval, for each status


class Every:
    """A job that is due once per interval, by the monotonic clock; with `share`, it takes no more of the time."""

    def __init__(self, seconds: float, job: Callable[[], object], *, share: float = math.inf) -> None:
        self.seconds, self.job, self.share = seconds, job, share
        self._due = 0.0

    def run_if_due(self) -> None:
        if (started := time.monotonic()) >= self._due:
            self.job()
            ended = time.monotonic()
            self._due = ended + rest_after(ended - started, share=self.share, shortest=self.seconds)

    @property
    def due(self) -> float:
        return self._due


class Upkeep:
    """What one worker does besides turns."""

    def __init__(
        self, database: Database, clock: DatabaseClock, worker_id: int, lease: timedelta, announce: Callable[[], None]
    ) -> None:
        self.database, self.clock, self.worker_id, self.lease = database, clock, worker_id, lease
        self._announce = announce
        self._observed: dict[int, tuple[int, float]] = {}
        seconds = lease.total_seconds()
        self._jobs = [
            Every(seconds / 3, self.renew),
            Every(seconds / 4, self.reap),
            Every(seconds, self.hand_back),
            Every(_EXPIRE_INTERVAL, self.expire, share=0.01),
            Every(60.0, self.sweep),
            Every(_PRUNE_INTERVAL, self.prune),
        ]

    def tick(self) -> None:
        for job in self._jobs:
            job.run_if_due()

    @property
    def next_due(self) -> float:
        return min(job.due for job in self._jobs)

    def renew(self) -> None:
        workers.renew(self.database, self.worker_id, self.lease)
        self.clock.synchronise(self.database)

    def reap(self) -> None:
        """Declare workers dead that were seen lapsed at the same beat twice, half a lease apart.

        Two looks on a monotonic clock: after a database restart every lease has lapsed, and nobody is dead.
        """
        now = time.monotonic()
        lapsed = {worker.id: worker for worker in workers.find_lapsed(self.database, self.worker_id)}
        self._observed = {
            id: seen for id, seen in self._observed.items() if id in lapsed and lapsed[id].beat == seen[0]
        }
        for id, worker in lapsed.items():
            _, first_seen = self._observed.setdefault(id, (worker.beat, now))
            if now - first_seen >= self.lease.total_seconds() / 2 and workers.declare_dead(self.database, worker):
                logger.warning("worker %s stopped renewing its lease; its work is handed to others", id)
                self.hand_back()

    def forget_observations(self) -> None:
        """Start over after trouble of this worker's own: what it saw before may be an effect of the same trouble."""
        self._observed.clear()

    def hand_back(self) -> None:
        if workers.hand_back(self.database):
            self._announce()

    def expire(self) -> None:
        if activities.expire(self.database, self.clock.now()):
            self._announce()

    def sweep(self) -> None:
        leftovers.sweep(self.database)

    def prune(self) -> None:
        """Remove what is past its retention, a little at a time: the turns of this thread wait meanwhile."""
        for status, age in (get_settings().retention or {}).items():
            ends = time.monotonic() + _PRUNE_SECONDS
            for _ in retention.prune(self.database, status, self.clock.now() - age):
                if time.monotonic() >= ends:
                    break

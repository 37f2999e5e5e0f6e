"""Waiting for a database that fails, and saying so in few lines."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError

from django_workflows.store.database import Database
from django_workflows.wakeups.announcer import one_line

logger = logging.getLogger("django_workflows.worker")

DATABASE_ERRORS = (DatabaseError, InterfaceError)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 5.0
# Seconds since the last line before an outage is told, is told again, and from then on. The first error is often the
# end of a connection, and only the next ones say what the matter is.
_INTERVALS = (1.0, 5.0, 60.0)


class Interrupted(Exception):
    """The worker has to leave while the database fails."""


class Outage:
    """Says once that the database fails, now and then that it still does, and once that it answers again.

    Of troubles that follow each other within a second only the first is told.
    """

    def __init__(self, database: Database, abort: threading.Event) -> None:
        self.database = database
        self.abort = abort
        self._gives_up_at = math.inf  # monotonic
        self.on_failure: Callable[[], None] = lambda: None
        self._since: float | None = None
        self._told = 0  # lines about this outage
        self._said = -math.inf
        self._failures = 0
        self._pause = _SHORTEST_PAUSE

    def give_up_after(self, seconds: float) -> None:
        """Wait no longer than this from now on, or from an earlier call."""
        self._gives_up_at = min(self._gives_up_at, time.monotonic() + seconds)

    def wait(self, error: Exception) -> None:
        """Drop the connection and pause, longer each time; raises Interrupted when the worker has to leave."""
        self._say(error)
        self.on_failure()
        self.database.discard_connection()
        pause = min(self._pause, max(0.0, self._gives_up_at - time.monotonic()))
        if self.abort.wait(pause) or time.monotonic() >= self._gives_up_at:
            raise Interrupted from error
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def end(self) -> None:
        """Note that nothing failed; without a connection nothing was asked for either."""
        if self._since is not None and self.database.connection.connection is not None:
            if self._told:
                logger.info("the database answers again after %.3g s", time.monotonic() - self._since)
            self._since, self._told, self._failures, self._pause = None, 0, 0, _SHORTEST_PAUSE

    def _say(self, error: Exception) -> None:
        now = time.monotonic()
        self._failures += 1
        self._since = self._since or now
        if now - self._said < _INTERVALS[min(self._told, len(_INTERVALS) - 1)]:
            return
        if self._told:
            logger.warning(
                "the database has failed for %.0f s, %s times: %s", now - self._since, self._failures, one_line(error)
            )
        else:
            logger.warning("the database fails, trying again until it answers: %s", one_line(error))
        self._said = now
        self._told += 1

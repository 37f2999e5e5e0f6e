"""The worker's clock: the database's time, carried forward by this machine's monotonic clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django_workflows.store.database import Database


class DatabaseClock:
    """Tells the database's time without asking it each time; this machine's wall clock plays no part."""

    def __init__(self) -> None:
        self._offset = 0.0

    def synchronise(self, database: Database) -> None:
        """Ask the database; half of the round trip is the error."""
        before = time.monotonic()
        now = database.now().timestamp()
        self._offset = now - (before + time.monotonic()) / 2

    def time(self) -> float:
        """Return seconds since 1970."""
        return time.monotonic() + self._offset

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def at(self, monotonic: float) -> datetime:
        """Return the database's time at a moment of this machine's monotonic clock."""
        return datetime.fromtimestamp(monotonic + self._offset, UTC)

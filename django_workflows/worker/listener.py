"""Hearing wake-ups from other processes; a worker that hears none polls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django_workflows import wakeups
from django_workflows.store.database import Database
from django_workflows.wakeups.announcer import one_line
from django_workflows.wakeups.carrier import Carrier

logger = logging.getLogger("django_workflows.worker")

_CHECK = 1.0  # seconds between two looks whether to stop
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_WATCH = 0.04  # seconds between two looks at SQLite's data version: each wakes the thread, under 1 % of a core in all


class Listener:
    """Hears nothing: polling alone."""

    interval: float | None = None  # the longest pause between two `heard()`; None: it wakes the worker by itself

    def heard(self) -> bool:
        """Tell whether something was committed since the last call."""
        return False

    def stop(self) -> None:
        """Stop listening."""


def listener_for(database: Database, name: str, wake: Callable[[], None]) -> Listener:
    """Return what hears the hints about a database, except those that the worker of this name sends itself."""
    carrier = wakeups.carrier_of(database.alias)
    if carrier is not None:
        return CarrierListener(carrier, name, wake)
    if database.connection.vendor == "sqlite":
        return DataVersionListener(database)
    return Listener()


class DataVersionListener(Listener):
    """Notices on SQLite that another connection has committed.

    https://www.sqlite.org/pragma.html#pragma_data_version
    """

    interval = _WATCH

    def __init__(self, database: Database) -> None:
        self._connection = database.connection  # of the thread that runs turns, which alone asks
        self._version: int | None = None

    def heard(self) -> bool:
        # The driver's own connection: a cursor of Django's costs ten times as much.
        connection = self._connection.connection
        if connection is None:
            return False
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        changed, self._version = bool(version != self._version), version
        return changed


class CarrierListener(Listener):
    """Listens in a thread of its own; connects again for ever, since polling carries on meanwhile."""

    def __init__(self, carrier: Carrier, name: str, wake: Callable[[], None]) -> None:
        self._carrier, self._name, self._wake = carrier, name, wake
        self._stopped = threading.Event()
        self._pause = 0.0  # seconds, 0 while all is well
        threading.Thread(target=self._run, name="workflow-listener", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except Exception as error:
                self._recover(error)

    def _listen(self) -> None:
        with self._carrier.listen() as receive:
            if self._pause:
                logger.info("wake-ups are heard again")
            self._pause = 0.0
            self._wake()  # something may have been announced before this connection listened
            while not self._stopped.is_set():
                if any(hint != self._name for hint in receive(_CHECK)):
                    self._wake()

    def _recover(self, error: Exception) -> None:
        if not self._pause and not self._stopped.is_set():
            logger.warning("wake-ups are not heard, polling goes on: %s", one_line(error))
        self._pause = min(self._pause * 2 or _SHORTEST_PAUSE, _LONGEST_PAUSE)
        self._stopped.wait(self._pause)

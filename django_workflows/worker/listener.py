"""Hearing wake-ups from other processes; a worker that hears none polls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from django_workflows.store.database import Database
from django_workflows.wakeups import CHANNEL

logger = logging.getLogger("django_workflows.worker")

_CHECK = 1.0  # seconds between two looks whether to stop
_LONGEST_PAUSE = 30.0
_WATCH = 0.02  # seconds between two looks at SQLite's data version: under 1 % of a core


class Listener:
    """Hears nothing: polling alone."""

    interval: float | None = None  # the longest pause between two `heard()`; None: it wakes the worker by itself

    def heard(self) -> bool:
        """Tell whether something was committed since the last call."""
        return False

    def stop(self) -> None:
        """Stop listening."""


def listener_for(database: Database, wake: Callable[[], None]) -> Listener:
    """Return the listener for the database's vendor."""
    match database.connection.vendor:
        case "postgresql" if find_spec("psycopg") is not None:  # psycopg2 has no notifies()
            return NotificationListener(database.connection, wake)
        case "sqlite":
            return DataVersionListener(database)
    return Listener()


class DataVersionListener(Listener):
    """Notices on SQLite that another connection has committed.

    https://www.sqlite.org/pragma.html#pragma_data_version
    """

    interval = _WATCH

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version: int | None = None

    def heard(self) -> bool:
        connection = self._database.connection
        if connection.connection is None:
            return False
        # The driver's own connection: a cursor of Django's costs ten times as much, fifty times a second.
        (version,) = connection.connection.execute("PRAGMA data_version").fetchone()
        changed, self._version = bool(version != self._version), version
        return changed


class NotificationListener(Listener):
    """Listens on a connection of its own, in a thread; reconnects for ever, since polling carries on meanwhile."""

    def __init__(self, connection: BaseDatabaseWrapper, wake: Callable[[], None]) -> None:
        self._parameters = {**connection.get_connection_params()}
        self._wake = wake
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="workflow-listener", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        import psycopg

        pause = 1.0
        while not self._stopped.is_set():
            try:
                with psycopg.connect(**self._driver_parameters(), autocommit=True) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    pause = 1.0
                    self._wake()  # something may have been announced before this connection listened
                    self._listen(connection)
            except psycopg.Error as error:
                logger.warning("wake-ups are off for %g s, polling goes on: %s", pause, " ".join(str(error).split()))
                self._stopped.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _driver_parameters(self) -> dict[str, Any]:
        ours = ("cursor_factory", "context", "prepare_threshold")  # Django's adapters are of no use here
        return {name: value for name, value in self._parameters.items() if name not in ours}

    def _listen(self, connection: Any) -> None:
        while not self._stopped.is_set():
            for _ in connection.notifies(timeout=_CHECK, stop_after=1):
                self._wake()

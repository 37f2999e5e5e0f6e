"""Wake-ups: hints that there is work. The tables are the truth, a poll finds everything without them.

In one process a hint is a function call. Between processes PostgreSQL carries it by NOTIFY; on SQLite workers watch
`PRAGMA data_version`, which needs no sender; elsewhere polling alone does the work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import DatabaseError, InterfaceError, connections, transaction

logger = logging.getLogger("django_workflows.wakeups")

CHANNEL = "django_workflows"
# A worker that has heard one hint polls every few milliseconds for a while, so it needs no second one.
_QUIET = 0.005

_local: list[Callable[[], None]] = []
_lock = threading.Lock()
_last_sent = 0.0


@contextmanager
def local(wake: Callable[[], None]) -> Iterator[None]:
    """Have `wake` called when work is announced in this process."""
    _local.append(wake)
    try:
        yield
    finally:
        _local.remove(wake)


def announce_on_commit(alias: str) -> None:
    """Tell workers to look for work once the caller's transaction is committed.

    Robust: an error of the hint must not look like a failed commit.
    """
    transaction.on_commit(lambda: _announce(alias), using=alias, robust=True)


def _announce(alias: str) -> None:
    for wake in list(_local):
        wake()
    connection = connections[alias]
    # Not inside a transaction: NOTIFY holds a lock of the whole server from there to the commit.
    if connection.vendor == "postgresql" and not connection.in_atomic_block and _is_due():
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"NOTIFY {CHANNEL}")
        except (DatabaseError, InterfaceError) as error:
            logger.debug("no wake-up was sent, polling will find the work: %s", error)


def _is_due() -> bool:
    global _last_sent
    with _lock:
        now = time.monotonic()
        if now - _last_sent < _QUIET:
            return False
        _last_sent = now
        return True

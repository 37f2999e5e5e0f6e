"""Wake-ups: hints that there is work. The tables are the truth, a poll finds everything without them.

In one process a hint is a function call. Between processes a carrier takes it: Redis where `WAKEUPS_CACHE` names a
cache, else PostgreSQL's NOTIFY. On SQLite workers watch `PRAGMA data_version`, which needs no sender. Elsewhere polling
alone does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from django.core.signals import setting_changed
from django.db import connections, transaction

from django_workflows.conf import get_settings

from .announcer import Announcer
from .carrier import Carrier

_local: list[Callable[[], None]] = []


@contextmanager
def local(wake: Callable[[], None]) -> Iterator[None]:
    """Have `wake` called when the application announces work in this process."""
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
    announce(alias)


def announce(alias: str, sender: str = "") -> None:
    """Tell workers in other processes now; `sender` is the worker that tells, which will not hear itself."""
    announcer = _announcer(alias)
    if announcer is not None:
        announcer.announce(sender)


def carrier_of(alias: str) -> Carrier | None:
    """Return what takes hints about a database from process to process; None where nothing does."""
    settings = get_settings()
    if settings.wakeups_cache is not None:
        from .redis_pubsub import RedisCarrier

        return RedisCarrier(settings.wakeups_cache, alias)
    if connections[alias].vendor == "postgresql" and settings.listen_database is not None:
        from .postgresql import NotifyCarrier, is_available

        return NotifyCarrier(alias, settings.listen_database) if is_available() else None
    return None


@cache
def _announcer(alias: str) -> Announcer | None:
    carrier = carrier_of(alias)
    return None if carrier is None else Announcer(carrier)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting in ("DJANGO_WORKFLOWS", "CACHES"):
        _announcer.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_workflows.wakeups")

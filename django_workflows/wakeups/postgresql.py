"""Hints by PostgreSQL's NOTIFY."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db import connections

from .carrier import Receive

CHANNEL = "django_workflows"
_PROBE = 5.0  # seconds for a hint to come round
# A connection that is idle for hours is cut off silently by many a router: notice that within half a minute.
_PARAMETERS = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}


class NotDelivered(Exception):
    """What is sent by NOTIFY does not arrive at the connection that listens."""


def is_available() -> bool:
    """Tell whether the driver can listen: psycopg 3 can."""
    from django.db.backends.postgresql import psycopg_any

    return bool(psycopg_any.is_psycopg3)


class NotifyCarrier:
    """Sends on the connection of the thread that calls, listens on one that belongs to no thread of Django's."""

    def __init__(self, alias: str, listen_alias: str) -> None:
        self._alias, self._listen_alias = alias, listen_alias

    def send(self, hint: str) -> None:
        connection = connections[self._alias]
        # Not inside a transaction: NOTIFY holds a lock of the whole server from there to the commit.
        if not connection.in_atomic_block:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, hint])

    @contextmanager
    def listen(self) -> Iterator[Receive]:
        with _connect(self._listen_alias) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._probe(connection)
            yield partial(_receive, connection)

    def _probe(self, connection: Any) -> None:
        """Send a hint the way others do and wait for it; a pooler in transaction mode would drop it silently."""
        probe = f"probe {uuid.uuid4()}"
        with _connect(self._alias) as sender:
            sender.execute("SELECT pg_notify(%s, %s)", [CHANNEL, probe])
        if not any(notice.payload == probe for notice in connection.notifies(timeout=_PROBE)):
            connection.execute("UNLISTEN *")  # the pooler would log each hint that this session of its gets
            raise NotDelivered(
                f'what is sent by NOTIFY does not arrive at DATABASES["{self._listen_alias}"]; is there a pooler in '
                'transaction mode? Name a direct connection in DJANGO_WORKFLOWS["LISTEN_DATABASE"]'
            )


def _connect(alias: str) -> Any:
    import psycopg

    ours = ("cursor_factory", "context", "prepare_threshold")  # Django's adapters are of no use here
    parameters = connections[alias].get_connection_params()
    parameters = {name: value for name, value in parameters.items() if name not in ours}
    return psycopg.connect(**_PARAMETERS | parameters, autocommit=True)


def _receive(connection: Any, timeout: float) -> list[str]:
    return [notice.payload for notice in connection.notifies(timeout=timeout, stop_after=1)]

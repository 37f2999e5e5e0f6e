"""Other processes: one that starts a workflow, and a Redis that may be stopped, frozen and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from .waiting import eventually

ROOT = Path(__file__).resolve().parent.parent.parent
_START = """
import sys, django
django.setup()
from tests.testapp.workflows import greet
greet.using(instance_id=sys.argv[1]).start("hello")
"""


def start_elsewhere(instance_id: str, **environment: str) -> None:
    """Start `greet` in a process of its own, as a web server would."""
    subprocess.run(
        [sys.executable, "-c", _START, instance_id],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment},
        timeout=60,
        check=True,
    )


def listening_sessions(application: str = "") -> set[int]:
    """Return the process ids of the sessions of PostgreSQL that listen for wake-ups on this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LISTEN %%' AND application_name = %s",
            [application],
        )
        return {pid for (pid,) in cursor.fetchall()}


class RedisServer:
    """A Redis of the tests' own, in memory, on a port of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """CACHES with this server as "redis"."""
        location = f"redis://127.0.0.1:{self.port}/0"
        return {"redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location}}

    @property
    def environment(self) -> dict[str, str]:
        """What makes another process use it."""
        return {"WAKEUPS_CACHE": "redis", "REDIS_PORT": str(self.port)}

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        eventually(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it accept connections and answer none of them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def listeners(self, channel: str) -> int:
        """Return how many connections are subscribed to a channel."""
        import redis

        with redis.Redis(port=self.port) as client:
            return int(client.pubsub_numsub(channel)[0][1])


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Run a Redis for the length of the block; skips the test where there is none, and fails it where CI is set."""
    if shutil.which("redis-server") is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("redis-server is not installed")
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()

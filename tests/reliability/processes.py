"""Real worker processes, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class WorkerProcesses:
    """A fleet of `runworkflowworker` processes; `kill` is SIGKILL."""

    def __init__(self, count: int, *, lease: float, cache_size: int, arguments: tuple[str, ...]) -> None:
        self._arguments = arguments
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "LEASE": str(lease),
            "STICKY_CACHE_SIZE": str(cache_size),
        }
        self.processes = [self._start() for _ in range(count)]
        self.kills = 0

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "manage.py", "runworkflowworker", "--verbosity", "0", *self._arguments]
        return subprocess.Popen(command, env=self._environment, start_new_session=True)

    def kill_and_replace(self, index: int) -> None:
        process = self.processes[index]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills += 1
        self.processes[index] = self._start()

    def stop(self) -> list[int]:
        """Drain all and return their exit codes."""
        for process in self.processes:
            process.terminate()
        return [process.wait(timeout=60) for process in self.processes]


@contextmanager
def worker_processes(
    count: int, *, lease: float, cache_size: int = 1000, arguments: tuple[str, ...] = ()
) -> Iterator[WorkerProcesses]:
    fleet = WorkerProcesses(count, lease=lease, cache_size=cache_size, arguments=arguments)
    try:
        yield fleet
    finally:
        for process in fleet.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

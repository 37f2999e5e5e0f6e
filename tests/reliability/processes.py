"""Real worker processes, to be killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType


class WorkerProcesses:
    """A fleet of `runworkflowworker` processes; `kill` is SIGKILL. What they log goes to `log`, or to the terminal."""

    def __init__(
        self, count: int, *, lease: float, cache_size: int, arguments: tuple[str, ...], log: Path | None,
        environment: Mapping[str, str], command: tuple[str, ...],
    ) -> None:  # fmt: skip
        self._command = [sys.executable, *command, "--verbosity", "0" if log is None else "1", *arguments]
        self._log = log
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "LEASE": str(lease),
            "STICKY_CACHE_SIZE": str(cache_size),
            **environment,
        }
        self.processes = [self._start() for _ in range(count)]
        self.kills = 0

    def _start(self) -> subprocess.Popen[bytes]:
        if self._log is None:
            return subprocess.Popen(self._command, env=self._environment, start_new_session=True)
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, env=self._environment, start_new_session=True, stderr=log)

    def kill_and_replace(self, index: int) -> None:
        process = self.processes[index]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills += 1
        self.processes[index] = self._start()

    def kill_at_random(self, *, done: Callable[[], bool], progress: Callable[[], int], every: int, most: int) -> bool:
        """Kill a worker after each so much progress, however quick; return whether all was done in 90 seconds."""
        dice, deadline = random.Random(1), time.monotonic() + 90
        while not done():
            if time.monotonic() >= deadline:
                return False
            if self.kills < most and progress() >= every * (self.kills + 1):
                self.kill_and_replace(dice.randrange(len(self.processes)))
            time.sleep(0.01)  # between two looks at the conditions
        return True

    def stop(self) -> list[int]:
        """Drain all and return their exit codes."""
        for process in self.processes:
            process.terminate()
        return [process.wait(timeout=60) for process in self.processes]


@contextmanager
def worker_processes(
    count: int, *, lease: float, cache_size: int = 1000, arguments: tuple[str, ...] = (), log: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    command: tuple[str, ...] = ("manage.py", "runworkflowworker"),
) -> Iterator[WorkerProcesses]:  # fmt: skip
    fleet = WorkerProcesses(
        count, lease=lease, cache_size=cache_size, arguments=arguments, log=log, environment=environment,
        command=command,
    )  # fmt: skip
    try:
        yield fleet
    finally:
        for process in fleet.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

"""What the demo stands on: a clock that prefixes lines, a worker process to kill, waiting with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
WORKER_COMMAND = ["manage.py", "runworkflowworker", "--settings", "example_project.settings"]
STOP_SECONDS = 40


class DemoFailed(Exception):
    """Something is not as the demo expects it."""


class Story:
    """Prints what happens, each line with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        print(f"{self.elapsed:6.1f} s  {text}", flush=True)

    def wait(
        self,
        condition: Callable[[], object],
        what: str,
        *,
        workers: Sequence[WorkerProcess] = (),
        progress: Callable[[], str] = str,
        seconds: float = 30,
    ) -> None:
        """Wait until the condition is true, telling once a second how far things are."""
        deadline, next_line, told = time.monotonic() + seconds, time.monotonic() + 1, ""
        while not condition():
            now = time.monotonic()
            for worker in workers:
                worker.must_run()
            if now > deadline:
                raise DemoFailed(f"expected {what} within {seconds:.0f} s; found: {progress() or 'not so'}")
            if now > next_line:
                next_line = now + 1
                if (text := progress()) and text != told:
                    self.say(f"... {text}")
                    told = text
            time.sleep(0.02)


class WorkerProcess:
    """`manage.py runworkflowworker` in a process of its own."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *WORKER_COMMAND, "--no-reload"],  # the reloader would run it in a child process
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C ends the demo, and the demo ends its workers
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def must_run(self) -> None:
        if self._process.poll() is not None:
            self._fail(f"expected worker {self.pid} to run, found it ended with exit code {self._process.returncode}")

    def kill(self) -> None:
        """Let it die as in a power cut: no handler runs, nothing is handed back."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask it to finish, as an operator would."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._fail(f"expected worker {self.pid} to stop within {STOP_SECONDS} s of SIGTERM, found it still running")
        if code != 0:
            self._fail(f"expected exit code 0 from the worker after SIGTERM, found {code}")

    def discard(self) -> None:
        """Leave nothing running, whatever happened before."""
        if self._process.poll() is None:
            self.kill()

    def _fail(self, text: str) -> NoReturn:
        raise DemoFailed(text)


def last_lines(path: Path, count: int = 20) -> str:
    """Return the end of a log, indented."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join(f"    {line}" for line in lines[-count:]) or "    (nothing)"


def table(title: str, rows: Sequence[tuple[str, object]]) -> str:
    """Return two columns as text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])

"""Several worker processes under one parent, which forwards signals and replaces a child that dies."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger("django_workflows.worker")

_QUICK_DEATH = 5.0  # a child that lived shorter than this is replaced after a pause


def run_processes(count: int, argv: Sequence[str]) -> int:
    """Run `argv` with `--processes 1` in `count` children until stopped; return the exit code.

    Children are started afresh, not forked: no connection and no lock is shared with the parent.
    """
    return _Supervisor(count, [sys.executable, *_for_one_process(argv)]).run()


def _for_one_process(argv: Sequence[str]) -> list[str]:
    arguments = list(argv)
    for place, argument in enumerate(arguments):
        if argument == "--processes":
            arguments[place + 1] = "1"
        elif argument.startswith("--processes="):
            arguments[place] = "--processes=1"
    return [*arguments, "--no-reload"]


class _Supervisor:
    def __init__(self, count: int, command: list[str]) -> None:
        self.command = command
        self.children: list[subprocess.Popen[bytes]] = []
        self.started: dict[int, float] = {}
        self.count = count
        self.signals = 0

    def run(self) -> int:
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.children = [self._start() for _ in range(self.count)]
            codes: list[int] = []
            while self.children:
                for child in list(self.children):
                    code = child.poll()
                    if code is not None:
                        self.children.remove(child)
                        if code and not self.signals:
                            self._replace(child, code)
                        else:
                            codes.append(code)
                time.sleep(0.1)
            return max(codes, key=abs, default=0) and 1
        finally:
            for number, old in previous.items():
                signal.signal(number, old)

    def _start(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches the parent alone, which forwards it once.
        child = subprocess.Popen(self.command, start_new_session=True)
        self.started[child.pid] = time.monotonic()
        return child

    def _replace(self, child: subprocess.Popen[bytes], code: int) -> None:
        lived = time.monotonic() - self.started.pop(child.pid)
        logger.error("worker process %s ended with code %s after %.0f s; it is replaced", child.pid, code, lived)
        if lived < _QUICK_DEATH:
            time.sleep(1.0)
        if not self.signals:
            self.children.append(self._start())

    def _on_signal(self, number: int, frame: Any) -> None:
        self.signals += 1
        for child in self.children:
            child.send_signal(signal.SIGTERM)

"""The systems that run the workloads, each set up as its own documentation advises.

Ours and its peers share the machine, the server and the no-op bodies. What each does is in its class's docstring, with
whom a difference favours; docs/performance.md repeats it for readers.
"""

from __future__ import annotations

import importlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version

# Ends a wait that would never end; the runner's own limit is below it for short cases.
LONGEST_WAIT = 1800.0
_CLASSES = {
    "ours": "Ours",
    "dbos": "DBOSSystem",
    "celery": "CelerySystem",
    "procrastinate": "ProcrastinateSystem",
    "absurd": "AbsurdSystem",
}
PEERS = tuple(name for name in _CLASSES if name != "ours")


class System(ABC):
    """One system with its worker. A method runs its workload to the end and checks what came out."""

    packages: tuple[str, ...]
    processes = 1  # of its worker

    @abstractmethod
    def serving(self) -> AbstractContextManager[None]:
        """Run the worker, on an empty database made for it, for the length of the block."""

    @abstractmethod
    def sequential(self, instances: int, steps: int) -> None: ...

    @abstractmethod
    def independent(self, tasks: int) -> None: ...

    @abstractmethod
    def fan_out(self, parallel: int) -> None: ...

    @abstractmethod
    def tree(self, **parameters: int) -> None: ...

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in self.packages}


def load(name: str) -> System:
    """Return a system; raises ImportError where its packages are not installed."""
    system: System = getattr(importlib.import_module(f"{__name__}.{name}"), _CLASSES[name])()
    return system


def database_name(system: str) -> str:
    """Return the name of a database that only this system uses in this run."""
    return f"{os.environ['DATABASE_NAME']}_{system}"


def wait_until(condition: Callable[[], bool], every: float = 0.01, longest: float = LONGEST_WAIT) -> None:
    """Wait for a condition, not for ever."""
    ends = time.monotonic() + longest
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"expected what is waited for to happen within {longest:g} s")
        time.sleep(every)


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"expected {what} to be {expected!r}, found {found!r}")

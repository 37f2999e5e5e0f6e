"""The parts: one question each. A part is a module with NAME, TITLE, `cases(sizes)` and `measure(case)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from benchmarks.case import Case
from benchmarks.sizes import Sizes

from . import (
    closed,
    comparison,
    disks,
    history,
    latency,
    memory,
    payloads,
    processes,
    profile,
    sleepers,
    transaction,
    vendors,
)


class Part(Protocol):
    NAME: str

    def cases(self, sizes: Sizes) -> Iterator[Case]: ...

    def measure(self, case: Case) -> dict[str, Any]: ...


# In the order of their importance: a run that is cut short has measured the first ones.
_MODULES: tuple[Any, ...] = (
    comparison, vendors, latency, disks, profile, closed, sleepers, history, processes, transaction, payloads, memory,
)  # fmt: skip
PARTS: dict[str, Part] = {module.NAME: module for module in _MODULES}

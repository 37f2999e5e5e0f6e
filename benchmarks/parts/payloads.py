"""What larger arguments and results cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import databases, workflows
from benchmarks.case import Case
from benchmarks.figures import median
from benchmarks.sizes import Sizes
from benchmarks.systems.ours import make_database, run_all, worker_process

NAME = "payloads"
_STEPS = 5


def cases(sizes: Sizes) -> Iterator[Case]:
    for vendor in databases.VENDORS:
        yield Case(NAME, vendor, vendor, 900, sizes.only("payloads", "payload_instances", "pairs", "threads"))


def measure(case: Case) -> dict[str, Any]:
    make_database()
    rates: dict[int, list[float]] = {size: [] for size in (10, *case.parameters["payloads"])}
    count = case.parameters["payload_instances"]
    with worker_process(case.parameters["threads"]):
        run_all(workflows.echoing, [(1, "x")])
        for _ in range(case.parameters["pairs"]):
            for size, found in rates.items():
                found.append(count * _STEPS / run_all(workflows.echoing, [(_STEPS, "x" * size)] * count))
    return {str(size): median(found) for size, found in rates.items()}

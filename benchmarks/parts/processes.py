"""What more worker processes bring, taking turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import databases
from benchmarks.case import Case
from benchmarks.drive import drive
from benchmarks.figures import median
from benchmarks.sizes import Sizes
from benchmarks.workloads import WORKLOADS

NAME = "processes"
_WORKLOADS = ("sequential", "independent")


def cases(sizes: Sizes) -> Iterator[Case]:
    names = [size for workload in _WORKLOADS for size in WORKLOADS[workload].sizes]
    for vendor in databases.VENDORS:
        yield Case(NAME, vendor, vendor, 900, sizes.only("processes", "pairs", "threads", *names))


def measure(case: Case) -> dict[str, Any]:
    return {workload: _measure(case, workload) for workload in _WORKLOADS}


def _measure(case: Case, workload: str) -> dict[int, float]:
    activities = WORKLOADS[workload].activities(case.parameters)
    rates: dict[int, list[float]] = {count: [] for count in case.parameters["processes"]}
    for _ in range(case.parameters["pairs"]):
        for count, found in rates.items():
            threads = case.parameters["threads"]
            seconds = drive("ours", workload, case.parameters, case.database, threads=threads, processes=count)
            found.append(activities / seconds)
    return {count: median(found) for count, found in rates.items()}

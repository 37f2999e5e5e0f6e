"""The same work on each database, taking turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import databases
from benchmarks.case import Case
from benchmarks.drive import drive
from benchmarks.figures import median
from benchmarks.sizes import Sizes
from benchmarks.workloads import WORKLOADS

NAME = "vendors"


def cases(sizes: Sizes) -> Iterator[Case]:
    for workload in WORKLOADS.values():
        parameters = {"workload": workload.name, **sizes.only("pairs", "threads", *workload.sizes)}
        yield Case(NAME, workload.name, "sqlite", 600, parameters)


def measure(case: Case) -> dict[str, Any]:
    workload = WORKLOADS[case.parameters["workload"]]
    activities = workload.activities(case.parameters)
    rates: dict[str, list[float]] = {vendor: [] for vendor in databases.reachable()}
    for _ in range(case.parameters["pairs"]):
        for vendor, found in rates.items():
            seconds = drive("ours", workload.name, case.parameters, vendor, threads=case.parameters["threads"])
            found.append(activities / seconds)
    return {"rates": rates, "median": {vendor: median(values) for vendor, values in rates.items()}}

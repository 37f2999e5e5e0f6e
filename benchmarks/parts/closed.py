"""Whether the pace depends on how many closed instances the tables hold: three databases take turns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from benchmarks import bulk, databases, workflows
from benchmarks.case import Case
from benchmarks.figures import median
from benchmarks.sizes import Sizes
from benchmarks.systems.ours import make_database, run_all, worker_process
from django_workflows.models import WorkflowInstance

NAME = "closed"


def cases(sizes: Sizes) -> Iterator[Case]:
    for vendor in databases.VENDORS:
        yield Case(NAME, vendor, vendor, 2400, sizes.only("closed", "instances", "steps", "pairs", "threads"))


def measure(case: Case) -> dict[str, Any]:
    names = {count: f"{os.environ['DATABASE_NAME']}_{count}" for count in case.parameters["closed"]}
    for count, name in names.items():
        bulk.use_database(name)
        make_database()
        with worker_process(1):
            run_all(workflows.single, [(1,)])
        bulk.clone_closed(WorkflowInstance.objects.get(), count)
    instances, steps = case.parameters["instances"], case.parameters["steps"]
    rates: dict[int, list[float]] = {count: [] for count in names}
    for _ in range(2 * case.parameters["pairs"] - 1):  # the target is a small difference: more turns
        for count, name in names.items():
            bulk.use_database(name)
            with worker_process(case.parameters["threads"]):
                run_all(workflows.sequential, [(1,)])
                seconds = run_all(workflows.sequential, [(steps,)] * instances)
                rates[count].append(instances * steps / seconds)
    return {"rates": rates, "median": {count: median(values) for count, values in rates.items()}}

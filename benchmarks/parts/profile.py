"""Where the time goes, of the first workload and of one instance alone: statements, commits, functions of a turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import databases, workflows
from benchmarks.case import Case
from benchmarks.instrumented import Report, instrumented_worker
from benchmarks.sizes import Sizes
from benchmarks.systems.ours import make_database, run_all

NAME = "profile"


def cases(sizes: Sizes) -> Iterator[Case]:
    for vendor in databases.VENDORS:
        yield Case(NAME, vendor, vendor, 300, sizes.only("instances", "steps", "pairs", "threads"))
        alone = {**sizes.only("pairs", "threads"), "instances": 1, "steps": sizes.chained}
        yield Case(NAME, f"{vendor}/alone", vendor, 300, alone)


def measure(case: Case) -> dict[str, Any]:
    make_database()
    # Two workers: looking at stacks costs time itself.
    counted = _watched(case, sample=False)
    sampled = _watched(case, sample=True)
    return {**counted, "samples": sampled["samples"]}


def _watched(case: Case, *, sample: bool) -> Report:
    """Return what a worker did per activity; all runs together."""
    instances, steps, runs = (case.parameters[name] for name in ("instances", "steps", "pairs"))
    activities = instances * steps * runs
    with instrumented_worker(threads=case.parameters["threads"], sample=sample) as report:
        run_all(workflows.sequential, [(1,)])
        report()
        seconds = sum(run_all(workflows.sequential, [(steps,)] * instances) for _ in range(runs))
        spent = report()
    return {
        "activities": activities,
        "seconds": seconds,
        "cpu": spent["cpu"],
        "cpu_turns": spent["cpu_turns"],
        "statements": spent["statements"],
        "commits": spent["commits"],
        "samples": spent["samples"],
    }

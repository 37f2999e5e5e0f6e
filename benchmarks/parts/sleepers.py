"""What an idle worker costs beside instances that sleep for a long time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks import bulk, databases, workflows
from benchmarks.case import Case
from benchmarks.figures import quantiles
from benchmarks.instrumented import instrumented_worker
from benchmarks.sizes import Sizes
from benchmarks.systems import wait_until
from benchmarks.systems.ours import make_database, worker_process
from django_workflows.models import OpenInstance, Timer, WorkflowInstance

NAME = "sleepers"


def cases(sizes: Sizes) -> Iterator[Case]:
    for vendor in databases.VENDORS:
        yield Case(NAME, vendor, vendor, 900, sizes.only("sleepers", "idle", "threads"))


def measure(case: Case) -> dict[str, Any]:
    make_database()
    without = _idle(case)
    with worker_process(1):
        workflows.sleeping.start(365)
        wait_until(Timer.objects.exists)
    wait_until(lambda: not OpenInstance.objects.filter(owner_id__isnull=False).exists())
    bulk.clone_sleeping(WorkflowInstance.objects.get(), case.parameters["sleepers"])
    return {"without": without, "with": _idle(case)}


def _idle(case: Case) -> dict[str, Any]:
    """Return the share of a core that an idle worker takes, and the time of its polls."""
    seconds = case.parameters["idle"]
    with instrumented_worker(threads=case.parameters["threads"]) as report:
        time.sleep(min(3.0, seconds))  # what a new worker does once; then its polls are a quarter of a second apart
        report()
        time.sleep(seconds)
        spent = report()
    polls = spent["polls"] or [0.0]
    return {"cpu": spent["cpu"] / seconds, "polls_per_second": len(polls) / seconds, "poll": quantiles(polls)}

"""How much memory instances take that a worker holds between their steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks import workflows
from benchmarks.case import Case
from benchmarks.instrumented import instrumented_worker
from benchmarks.sizes import Sizes
from benchmarks.systems import wait_until
from benchmarks.systems.ours import make_database
from django_workflows.models import OpenInstance

NAME = "memory"
_STEPS = 3  # so that the machines have seen something


def cases(sizes: Sizes) -> Iterator[Case]:
    yield Case(NAME, "sticky", "sqlite", 600, sizes.only("machines", "threads"))


def measure(case: Case) -> dict[str, Any]:
    make_database()
    threads, counts = case.parameters["threads"], sorted(case.parameters["machines"])
    with instrumented_worker(threads=threads, sticky_cache_size=max(counts) + 10) as report:
        workflows.timed.start(1).result(timeout=60)
        found = {"0": report()["memory"]}
        for fewer, count in zip([0, *counts], counts, strict=False):
            workflows.waiting.start_many([(_STEPS,)] * (count - fewer))
            wait_until(partial(_holds, count), every=0.1)
            found[str(count)] = report()["memory"]
    return found


def _holds(count: int) -> bool:
    waiting = OpenInstance.objects.filter(history_length__gte=1 + 2 * _STEPS, owner_id__isnull=False)
    return waiting.count() == count

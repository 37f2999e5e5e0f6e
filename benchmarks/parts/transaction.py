"""Sustained load beside a transaction that somebody keeps open: on PostgreSQL no dead row can be cleaned up then."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from benchmarks import databases, workflows
from benchmarks.case import Case
from benchmarks.sizes import Sizes
from benchmarks.systems.ours import make_database, run_all, worker_process

NAME = "transaction"


def cases(sizes: Sizes) -> Iterator[Case]:
    parameters = sizes.only("sustained", "instances", "steps", "pairs", "threads")
    yield Case(NAME, "postgresql", "postgresql", 1200, parameters)


def measure(case: Case) -> dict[str, Any]:
    runs: dict[str, list[list[float]]] = {"without": [], "with": []}
    for _ in range(case.parameters["pairs"]):
        for name, beside in (("without", nullcontext), ("with", _open_transaction)):
            make_database()
            with worker_process(case.parameters["threads"]), beside():
                run_all(workflows.sequential, [(1,)])
                runs[name].append(_sustained(case))
    return {name: _summary(rates) for name, rates in runs.items()}


@contextmanager
def _open_transaction() -> Iterator[None]:
    """Keep a snapshot of this process's database open."""
    import psycopg

    with psycopg.connect(databases.postgresql_url(os.environ["DATABASE_NAME"])) as link:
        link.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        link.execute("SELECT count(*) FROM django_workflows_openinstance")
        yield


def _sustained(case: Case) -> list[float]:
    """Return the pace of one batch after the other."""
    instances, steps = case.parameters["instances"], case.parameters["steps"]
    ends = time.monotonic() + case.parameters["sustained"]
    rates: list[float] = []
    while not rates or time.monotonic() < ends:
        rates.append(instances * steps / run_all(workflows.sequential, [(steps,)] * instances))
    return rates


def _summary(runs: list[list[float]]) -> dict[str, float]:
    """Return the median pace of the first and of the last third of the batches."""
    first = [rate for rates in runs for rate in rates[: max(1, len(rates) // 3)]]
    last = [rate for rates in runs for rate in rates[-max(1, len(rates) // 3) :]]
    return {"first": statistics.median(first), "last": statistics.median(last)}

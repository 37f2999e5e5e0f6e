"""How long an idle worker takes to notice and to act, beside the cost of one commit of the same database."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from django.db import connection, transaction
from django.test import override_settings

from benchmarks import workflows
from benchmarks.case import Case
from benchmarks.figures import quantiles
from benchmarks.instrumented import instrumented_worker
from benchmarks.settings import with_wakeups
from benchmarks.sizes import Sizes
from benchmarks.systems.ours import make_database

NAME = "latency"
_TIMEOUT = 60.0
# What each database has of its own, Redis where that is the way to be told, and nothing.
_WAKEUPS = {
    "postgresql": ("notify", "redis", "polling"),
    "sqlite": ("data-version", "polling"),
    "mariadb": ("redis", "polling"),
}


def cases(sizes: Sizes) -> Iterator[Case]:
    for vendor, ways in _WAKEUPS.items():
        for wakeups in ways:
            parameters = {"wakeups": wakeups, **sizes.only("samples", "pause", "chained", "threads")}
            yield Case(NAME, f"{vendor}/{wakeups}", vendor, 900, parameters)


def measure(case: Case) -> dict[str, Any]:
    samples, pause, chained = (case.parameters[name] for name in ("samples", "pause", "chained"))
    threads, wakeups = case.parameters["threads"], case.parameters["wakeups"]
    make_database()
    told = override_settings(DJANGO_WORKFLOWS=with_wakeups(wakeups))
    with told, instrumented_worker(threads=threads, wakeups=wakeups):
        workflows.timed.start(1).result(timeout=_TIMEOUT)
        starts = [_start(pause) for _ in range(samples)]
        reactions = _signals(samples, pause)
        chain = time_chain(chained)
    return {
        "start_to_activity": quantiles([begun for begun, _ in starts]),
        "start_to_result": quantiles([done for _, done in starts]),
        "signal_to_activity": quantiles(reactions),
        **chain,
    }


def time_chain(length: int) -> dict[str, Any]:
    """Measure one activity after the other of one workflow, and commits of this process before and after."""
    commits = _commits(length)
    times = workflows.timed.start(length).result(timeout=_TIMEOUT * 5)
    commits += _commits(length)
    return {
        "per_activity": quantiles([later - earlier for earlier, later in pairwise(times)]),
        "commit": quantiles(commits),
    }


def _start(pause: float) -> tuple[float, float]:
    """Return the seconds from a start to its activity, and to its result."""
    time.sleep(pause * random.uniform(0.8, 1.2))
    started = time.monotonic()
    (begun,) = workflows.timed.start(1).result(timeout=_TIMEOUT)
    return begun - started, time.monotonic() - started


def _signals(samples: int, pause: float) -> list[float]:
    """Return the seconds from each signal to the activity that it leads to."""
    handle = workflows.reacting.start(samples)
    sent = []
    for _ in range(samples):
        time.sleep(pause * random.uniform(0.8, 1.2))
        sent.append(time.monotonic())
        handle.signal(workflows.poke)
    reacted = handle.result(timeout=_TIMEOUT)
    return [later - earlier for earlier, later in zip(sent, reacted, strict=True)]


def _commits(count: int) -> list[float]:
    """Return the seconds of transactions that insert one row as wide as an event."""
    times = []
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS benchmark_commit (id integer PRIMARY KEY, data varchar(200))")
        cursor.execute("DELETE FROM benchmark_commit")
        for number in range(count):
            started = time.perf_counter()
            with transaction.atomic():
                cursor.execute("INSERT INTO benchmark_commit VALUES (%s, %s)", [number, "x" * 200])
            times.append(time.perf_counter() - started)
    return times

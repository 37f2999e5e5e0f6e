"""Measures one vendor, in a process of its own: `DATABASE=postgresql python -m benchmarks.measure`."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.db import connection  # noqa: E402
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402

from benchmarks import databases, workflows  # noqa: E402
from django_workflows.models import OpenInstance, Worker, WorkflowInstance  # noqa: E402
from django_workflows.testing import running_worker  # noqa: E402


@contextmanager
def worker_process(threads: int) -> Iterator[None]:
    """Run one worker process, ready to work."""
    known = Worker.objects.count()
    command = [sys.executable, "manage.py", "runworkflowworker", "--threads", str(threads), "--verbosity", "0"]
    process = subprocess.Popen(command)
    try:
        while Worker.objects.count() == known:
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_closed() -> None:
    while OpenInstance.objects.exists():
        time.sleep(0.005)


def throughput(instances: int, steps: int, threads: int) -> float:
    """Return activities per second of instances that each await no-op activities one after the other."""
    with worker_process(threads):
        workflows.sequential.start(1).result(timeout=30)
        started = time.perf_counter()
        workflows.sequential.start_many([(steps,)] * instances)
        wait_until_closed()
        elapsed = time.perf_counter() - started
    failed = WorkflowInstance.objects.exclude(status="completed").count()
    assert not failed, f"{failed} instances did not complete"
    return instances * steps / elapsed


def latency(samples: int) -> dict[str, float]:
    """Return milliseconds from start() to result() of a one-activity workflow on an idle worker process."""
    times = []
    with worker_process(8):
        workflows.sequential.start(1).result(timeout=30)
        for _ in range(samples):
            time.sleep(0.3)  # until the worker is idle again
            started = time.perf_counter()
            workflows.sequential.start(1).result(timeout=30)
            times.append((time.perf_counter() - started) * 1000)
    return {"p50": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98]}


def latency_in_process(samples: int) -> dict[str, float]:
    """Return the same with the worker in this process, where starts are announced."""
    times = []
    with running_worker():
        for _ in range(samples):
            started = time.perf_counter()
            workflows.sequential.start(1).result(timeout=30)
            times.append((time.perf_counter() - started) * 1000)
    return {"p50": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98]}


def statements(instances: int, steps: int) -> dict[str, float]:
    """Return statements and commits per activity, counted in a worker inside this process."""
    counts: Counter[str] = Counter()

    def count(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        counts["statements"] += 1
        return execute(sql, params, many, context)

    def wrap(sender: Any, connection: Any, **kwargs: Any) -> None:
        connection.execute_wrappers.append(count)

    commit = BaseDatabaseWrapper._commit

    def counted_commit(self: BaseDatabaseWrapper) -> None:
        counts["commits"] += 1
        commit(self)

    connection_created.connect(wrap)
    BaseDatabaseWrapper._commit = counted_commit  # type: ignore[method-assign]
    try:
        workflows.sequential.start_many([(steps,)] * instances)
        counts.clear()
        with running_worker():
            # This thread's own connection was open before and is not counted.
            wait_until_closed()
    finally:
        connection_created.disconnect(wrap)
        BaseDatabaseWrapper._commit = commit  # type: ignore[method-assign]
    return {name: counts[name] / (instances * steps) for name in ("statements", "commits")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    databases.make_fresh()
    rates = [throughput(options.instances, options.steps, options.threads) for _ in range(options.runs)]
    figures = {
        "rate": statistics.median(rates),
        "rates": rates,
        "latency": latency(options.samples),
        "latency_in_process": latency_in_process(options.samples * 5),
        **statements(options.instances, options.steps),
        "vendor": connection.display_name,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

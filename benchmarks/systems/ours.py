"""django_workflows: one worker process with its default settings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from django.core.management import call_command
from django.db import connection
from django.db.models import Max

from benchmarks import databases, workflows
from benchmarks.workloads import Tree
from django_workflows import Workflow
from django_workflows.models import OpenInstance, Worker, WorkflowInstance

from . import System, expect, wait_until


class Ours(System):
    """`runworkflowworker` with 8 threads. A task of its own is a workflow of one activity.

    The end is seen by asking every 5 ms whether a row of an open instance is left.
    """

    packages = ("django",)

    def __init__(self, *, threads: int = 8, processes: int = 1, fresh: bool = True) -> None:
        self.threads, self.processes, self.fresh = threads, processes, fresh

    @contextmanager
    def serving(self) -> Iterator[None]:
        if self.fresh:
            make_database()
        with worker_process(self.threads, self.processes):
            yield

    def sequential(self, instances: int, steps: int) -> None:
        run_all(workflows.sequential, [(steps,)] * instances, {sum(range(steps))})

    def independent(self, tasks: int) -> None:
        run_all(workflows.single, [(number,) for number in range(tasks)])

    def fan_out(self, parallel: int) -> None:
        run_all(workflows.fan_out, [(parallel,)], {sum(range(parallel))})

    def tree(self, **parameters: int) -> None:
        shape = Tree(**parameters)
        run_all(workflows.tree, [(asdict(shape), 0)] * shape.runs, {shape.activities_per_root})


def make_database() -> None:
    """Make the database that this process is configured for, and its tables."""
    connection.close()  # or it would go on with the file or the session of the database before
    databases.create(os.environ["DATABASE"], os.environ["DATABASE_NAME"])
    call_command("migrate", verbosity=0)


@contextmanager
def worker_process(threads: int, processes: int = 1) -> Iterator[None]:
    """Run the management command, ready to work."""
    known = set(Worker.objects.values_list("id", flat=True))
    numbers = ["--threads", str(threads), "--processes", str(processes), "--verbosity", "0"]
    process = subprocess.Popen([sys.executable, "manage.py", "runworkflowworker", *numbers])

    def ready() -> bool:
        if process.poll() is not None:
            raise ChildProcessError(f"expected the worker to run, it ended with code {process.returncode}")
        return Worker.objects.exclude(id__in=known).filter(state=Worker.State.ALIVE).count() >= processes

    try:
        wait_until(ready, longest=60)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def run_all(workflow: Workflow[Any, Any], arguments: list[tuple[Any, ...]], results: set[Any] | None = None) -> float:
    """Start instances, wait until everything in the database is closed, and return the seconds; then check results."""
    highest = WorkflowInstance.objects.aggregate(highest=Max("id"))["highest"] or 0
    started = time.perf_counter()
    workflow.start_many(arguments)
    wait_until(lambda: not OpenInstance.objects.exists(), every=0.005)
    seconds = time.perf_counter() - started
    instances = WorkflowInstance.objects.filter(id__gt=highest)
    expect("the unsuccessful instances", instances.exclude(status="completed").count(), 0)
    if results is not None:
        roots = instances.filter(name=workflow.name, parent_id=None).order_by()
        found = set(roots.values_list("result", flat=True).distinct())
        expect("the results", found, {str(result) for result in results})
    return seconds

"""procrastinate: tasks in PostgreSQL."""

from __future__ import annotations

import random
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import procrastinate
import psycopg

from benchmarks import databases
from benchmarks.workloads import Tree

from . import System, database_name, expect, wait_until

NAME = database_name("procrastinate")
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=databases.postgresql_url(NAME)))


class ProcrastinateSystem(System):
    """A worker process with a concurrency of 30 async tasks, the documentation's example; other options as they come.

    It has tasks, but no workflows and no results. So a sequence is a task that defers the next one, and fan-out and
    tree are tasks that defer others, which nobody joins: that favours procrastinate.
    """

    packages = ("procrastinate", "psycopg")

    @contextmanager
    def serving(self) -> Iterator[None]:
        databases.create("postgresql", NAME)
        with app.open():
            app.schema_manager.apply_schema()
            arguments = ["--app", f"{__name__}.app", "--log-level", "warning", "worker", "--concurrency", "30"]
            process = subprocess.Popen([sys.executable, "-m", "procrastinate", *arguments])
            try:
                with psycopg.connect(databases.postgresql_url(NAME), autocommit=True) as self.link:
                    yield
            finally:
                process.terminate()
                process.wait(timeout=60)

    def sequential(self, instances: int, steps: int) -> None:
        _step.batch_defer(*[{"left": steps - 1}] * instances)
        self._wait(instances * steps)

    def independent(self, tasks: int) -> None:
        _step.batch_defer(*[{"left": 0}] * tasks)
        self._wait(tasks)

    def fan_out(self, parallel: int) -> None:
        _fan_out.defer(count=parallel)
        self._wait(1 + parallel)

    def tree(self, **parameters: int) -> None:
        shape = Tree(**parameters)
        _tree.batch_defer(*[{"parameters": parameters, "level": 0}] * shape.runs)
        self._wait(shape.runs * (shape.instances_per_root + shape.activities_per_root))

    def _wait(self, jobs: int) -> None:
        """Wait until nothing is left to do, and check how many were done."""
        busy = "SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"
        wait_until(lambda: not self._value(busy), every=0.05)
        expect("the jobs done", self._value("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"), jobs)
        self.link.execute("DELETE FROM procrastinate_jobs")

    def _value(self, query: str) -> object:
        row = self.link.execute(query).fetchone()
        return row and row[0]


@app.task
async def _step(left: int) -> None:
    if left:
        await _step.defer_async(left=left - 1)


@app.task
async def _fan_out(count: int) -> None:
    await _step.batch_defer_async(*[{"left": 0}] * count)


@app.task
async def _random_text(size: int) -> str:
    return "".join(random.choices(string.ascii_letters, k=size))


@app.task
async def _tree(parameters: dict[str, int], level: int) -> None:
    shape = Tree(**parameters)
    if level > shape.depth:
        await _random_text.batch_defer_async(*[{"size": shape.resultsize}] * shape.activities)
    else:
        await _tree.batch_defer_async(*[{"parameters": parameters, "level": level + 1}] * shape.width(level))

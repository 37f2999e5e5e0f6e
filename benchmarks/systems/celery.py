"""Celery with Redis as broker and as store of results."""

from __future__ import annotations

import random
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery, chain, chord, group
from celery.result import ResultSet
from django.conf import settings

from benchmarks.workloads import Tree

from . import LONGEST_WAIT, System, expect, wait_until

URL = settings.REDIS_URL
_OURS = "workflows_benchmark"  # the key that says that the database may be emptied

app = Celery("benchmark", broker=URL, backend=URL)
# What the user guide's chapter on optimizing advises for many short tasks.
app.conf.worker_prefetch_multiplier = 64
app.conf.broker_connection_retry_on_startup = True


class CelerySystem(System):
    """A worker with two prefork processes, which prefetches 64 messages per process, as advised for short tasks.

    Sequential steps are a chain, the fan-out is a chord, the tree is chords in chords. Celery is not durable: its
    messages are acknowledged before they run, Redis keeps them in memory, and a chord's state is a counter. All of that
    favours Celery.
    """

    packages = ("celery", "kombu", "redis")
    processes = 2

    @contextmanager
    def serving(self) -> Iterator[None]:
        link = redis.Redis.from_url(URL)
        if link.dbsize() and not link.exists(_OURS):
            raise RuntimeError(f"expected an empty Redis database at {URL}: name another one in BENCHMARK_REDIS_URL")
        link.flushdb()
        link.set(_OURS, "1")
        arguments = ["-A", __name__, "worker", "--pool", "prefork", "--concurrency", str(self.processes)]
        quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]  # there is no other worker to talk to
        process = subprocess.Popen([sys.executable, "-m", "celery", *arguments, *quiet])
        try:
            wait_until(lambda: bool(app.control.ping(timeout=0.5)), longest=60)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)
            link.flushdb()

    def sequential(self, instances: int, steps: int) -> None:
        results = [chain(_step.si(number) for number in range(steps)).apply_async() for _ in range(instances)]
        expect("the results", set(ResultSet(results).get(timeout=LONGEST_WAIT)), {steps - 1})

    def independent(self, tasks: int) -> None:
        results = [_step.delay(number) for number in range(tasks)]
        expect("the sum", sum(ResultSet(results).get(timeout=LONGEST_WAIT)), sum(range(tasks)))

    def fan_out(self, parallel: int) -> None:
        result = chord(group(_step.si(number) for number in range(parallel)), _add.s()).apply_async()
        expect("the result", result.get(timeout=LONGEST_WAIT), sum(range(parallel)))

    def tree(self, **parameters: int) -> None:
        shape = Tree(**parameters)
        results = [_tree(shape, 0).apply_async() for _ in range(shape.runs)]
        expect("the results", set(ResultSet(results).get(timeout=LONGEST_WAIT)), {shape.activities_per_root})


@app.task(name="step")
def _step(number: int) -> int:
    return number


@app.task(name="add")
def _add(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="random_text")
def _random_text(size: int) -> str:
    return "".join(random.choices(string.ascii_letters, k=size))


@app.task(name="count")
def _count(texts: list[str]) -> int:
    return len(texts)


def _tree(shape: Tree, level: int) -> Any:
    if level > shape.depth:
        return chord(group(_random_text.si(shape.resultsize) for _ in range(shape.activities)), _count.s())
    return chord(group(_tree(shape, level + 1) for _ in range(shape.width(level))), _add.s())

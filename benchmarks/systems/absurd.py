"""Absurd: workflows as stored procedures of PostgreSQL, with a thin client."""

from __future__ import annotations

import os
import random
import string
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from absurd_sdk import Absurd

from benchmarks import databases
from benchmarks.workloads import Tree

from . import System, database_name, expect, wait_until

NAME = database_name("absurd")
URL = databases.postgresql_url(NAME)
# A task may only wait for tasks of another queue, and a worker serves one queue: here one per level of the tree.
QUEUES = [f"level{level}" for level in range(int(os.environ.get("ABSURD_LEVELS", "4")))]


class AbsurdSystem(System):
    """The sync client with a concurrency of 8 per queue; schema and queues made by `absurdctl`.

    Steps of one task run one after the other, so a leaf of the tree does; that spares Absurd tasks of their own. The
    fan-out is a task that spawns others in a second queue and waits for each.
    """

    packages = ("absurd-sdk", "psycopg")

    @contextmanager
    def serving(self) -> Iterator[None]:
        databases.create("postgresql", NAME)
        for arguments in (["init"], *(["create-queue", queue] for queue in QUEUES)):
            command = [str(Path(sys.executable).with_name("absurdctl")), *arguments, "-d", URL]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        process = subprocess.Popen([sys.executable, "-m", __name__])
        try:
            self.client = Absurd(URL, queue_name=QUEUES[0])
            yield
        finally:
            self.client.close()
            process.terminate()
            process.wait(timeout=60)

    def sequential(self, instances: int, steps: int) -> None:
        self._run("sequential", [{"steps": steps}] * instances, sum(range(steps)))

    def independent(self, tasks: int) -> None:
        self._run("independent", [{"number": number} for number in range(tasks)])

    def fan_out(self, parallel: int) -> None:
        self._run("fan_out", [{"count": parallel}], sum(range(parallel)))

    def tree(self, **parameters: int) -> None:
        shape = Tree(**parameters)
        expect("levels that have a queue", shape.depth + 2 <= len(QUEUES), True)
        self._run("tree", [{"parameters": parameters, "level": 0}] * shape.runs, shape.activities_per_root)

    def _run(self, task: str, parameters: list[dict[str, Any]], result: int | None = None) -> None:
        table, task = f"absurd.t_{QUEUES[0]}", _task_name(task, 0)
        for each in parameters:
            self.client.spawn(task, each, queue=QUEUES[0])
        unfinished = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE state IN ('pending', 'running', 'sleeping'))"
        with psycopg.connect(URL, autocommit=True) as link:
            wait_until(lambda: not link.execute(unfinished).fetchone()[0], every=0.05)  # type: ignore[index]
            found = link.execute(f"SELECT DISTINCT state, completed_payload FROM {table} WHERE task_name = %s", [task])
            rows = found.fetchall()
            link.execute(f"TRUNCATE {table}")
        expect("the states", {state for state, _ in rows}, {"completed"})
        if result is not None:
            expect("the results", {value for _, value in rows}, {result})


def _sequential(parameters: Any, context: Any) -> int:
    return sum(context.step(f"step{number}", lambda number=number: number) for number in range(parameters["steps"]))


def _independent(parameters: Any, context: Any) -> int:
    return int(parameters["number"])


def _register(client: Absurd, level: int) -> None:
    """Register the tasks of a queue with its client."""

    def fan_out(parameters: Any, context: Any) -> int:
        return _join(context, "independent", [{"number": number} for number in range(parameters["count"])])

    def tree(parameters: Any, context: Any) -> int:
        shape = Tree(**parameters["parameters"])
        if level > shape.depth:
            texts = [context.step(f"text{n}", lambda: _random_text(shape.resultsize)) for n in range(shape.activities)]
            return len(texts)
        below = {"parameters": parameters["parameters"], "level": level + 1}
        return _join(context, "tree", [below] * shape.width(level))

    def _join(context: Any, task: str, each: list[dict[str, Any]]) -> int:
        queue = QUEUES[level + 1]
        name = _task_name(task, level + 1)
        ids = [client.spawn(name, parameters, queue=queue)["task_id"] for parameters in each]
        return sum(context.await_task_result(task_id, queue_name=queue).result for task_id in ids)

    handlers = {"sequential": _sequential, "independent": _independent, "fan_out": fan_out, "tree": tree}
    for name, handler in handlers.items():
        client.register_task(_task_name(name, level))(handler)


def _task_name(name: str, level: int) -> str:
    """Return the name of a task in the queue of a level: a client refuses to spawn its own tasks elsewhere."""
    return f"{name}-{level}"


def _random_text(size: int) -> str:
    return "".join(random.choices(string.ascii_letters, k=size))


def main() -> None:
    threads = []
    for level, queue in enumerate(QUEUES):
        client = Absurd(URL, queue_name=queue)
        _register(client, level)
        threads.append(threading.Thread(target=client.start_worker, kwargs={"concurrency": 8}))
        threads[-1].start()
    for thread in threads:
        thread.join()  # a main thread that ends would take the thread pools along


if __name__ == "__main__":
    main()

"""DBOS Transact: a library that runs workflows in the process that starts them."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dbos import DBOS

from benchmarks import databases
from benchmarks.workloads import Tree

from . import System, database_name, expect


class DBOSSystem(System):
    """`DBOS.start_workflow` in this process, as the tutorial starts background work; no queue, whose poll waits 1 s.

    Sequential steps are sync functions on DBOS's own threads. Parallel steps are async and gathered. A task of its own
    is a workflow without a step, which spares DBOS the two transactions of one.
    """

    packages = ("dbos", "sqlalchemy", "psycopg")

    @contextmanager
    def serving(self) -> Iterator[None]:
        name = database_name("dbos")
        databases.create("postgresql", name)
        url = databases.postgresql_url(name)
        DBOS(config={"name": "benchmark", "system_database_url": url, "log_level": "WARNING"})
        DBOS.launch()
        try:
            yield
        finally:
            DBOS.destroy()

    def sequential(self, instances: int, steps: int) -> None:
        handles = [DBOS.start_workflow(_sequential, steps) for _ in range(instances)]
        expect("the results", {handle.get_result() for handle in handles}, {sum(range(steps))})

    def independent(self, tasks: int) -> None:
        handles = [DBOS.start_workflow(_independent, number) for number in range(tasks)]
        expect("the sum", sum(handle.get_result() for handle in handles), sum(range(tasks)))

    def fan_out(self, parallel: int) -> None:
        expect("the result", asyncio.run(_run_one(_fan_out, parallel)), sum(range(parallel)))

    def tree(self, **parameters: int) -> None:
        shape = Tree(**parameters)
        expect("the results", set(asyncio.run(_run_trees(shape, parameters))), {shape.activities_per_root})


@DBOS.step()
def _step(number: int) -> int:
    return number


@DBOS.workflow()
def _sequential(steps: int) -> int:
    return sum([_step(number) for number in range(steps)])


@DBOS.workflow()
def _independent(number: int) -> int:
    return number


@DBOS.step()
async def _async_step(number: int) -> int:
    return number


@DBOS.workflow()
async def _fan_out(count: int) -> int:
    return sum(await asyncio.gather(*(_async_step(number) for number in range(count))))


@DBOS.step()
async def _random_text(size: int) -> str:
    return "".join(random.choices(string.ascii_letters, k=size))


@DBOS.workflow()
async def _tree(parameters: dict[str, int], level: int) -> int:
    shape = Tree(**parameters)
    below: Any = _leaf if level == shape.depth else _tree
    handles = [await DBOS.start_workflow_async(below, parameters, level + 1) for _ in range(shape.width(level))]
    return sum([await handle.get_result() for handle in handles])


@DBOS.workflow()
async def _leaf(parameters: dict[str, int], level: int) -> int:
    count, size = parameters["activities"], parameters["resultsize"]
    return len(await asyncio.gather(*(_random_text(size) for _ in range(count))))


async def _run_one(workflow: Any, *arguments: Any) -> Any:
    handle = await DBOS.start_workflow_async(workflow, *arguments)
    return await handle.get_result()


async def _run_trees(shape: Tree, parameters: dict[str, int]) -> list[int]:
    handles = [await DBOS.start_workflow_async(_tree, parameters, 0) for _ in range(shape.runs)]
    return [await handle.get_result() for handle in handles]

"""The workflows and activities that the benchmarks run on our engine."""

from __future__ import annotations

import asyncio
import random
import string
import time
from datetime import timedelta
from typing import Any

from django_workflows import Signal, activity, workflow

from .workloads import Tree


@activity
def nothing(number: int) -> int:
    return number


@workflow
async def sequential(steps: int) -> int:
    total = 0
    for number in range(steps):
        total += await nothing(number)
    return total


@workflow
async def single(number: int) -> int:
    return await nothing(number)


@workflow
async def fan_out(count: int) -> int:
    return sum(await asyncio.gather(*(nothing(number) for number in range(count))))


# The tree


@activity
def random_text(size: int) -> str:
    return "".join(random.choices(string.ascii_letters, k=size))


@workflow
async def tree(parameters: dict[str, int], level: int) -> int:
    """Run the workflows below; return how many activities ran."""
    shape = Tree(**parameters)
    below: Any = leaf if level == shape.depth else tree
    return sum(await asyncio.gather(*(below(parameters, level + 1) for _ in range(shape.width(level)))))


@workflow
async def leaf(parameters: dict[str, int], level: int) -> int:
    count, size = parameters["activities"], parameters["resultsize"]
    return len(await asyncio.gather(*(random_text(size) for _ in range(count))))


# Latency: activities tell when they ran, by a clock that all processes of a machine share

poke = Signal("poke")


@activity
def clock() -> float:
    return time.monotonic()


@workflow
async def timed(steps: int) -> list[float]:
    return [await clock() for _ in range(steps)]


@workflow
async def reacting(count: int) -> list[float]:
    times = []
    for _ in range(count):
        await poke.receive()
        times.append(await clock())
    return times


# Scale


@workflow
async def waiting(steps: int) -> int:
    """Make a history of `steps` activities, and wait."""
    total = 0
    for number in range(steps):
        total += await nothing(number)
    await poke.receive()
    return total


@workflow
async def sleeping(days: int) -> None:
    await workflow.sleep(timedelta(days=days))


@activity
def echo(text: str) -> str:
    return text


@workflow
async def echoing(steps: int, text: str) -> int:
    return sum([len(await echo(text)) for _ in range(steps)])

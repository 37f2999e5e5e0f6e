"""The workloads."""

from __future__ import annotations

import asyncio

from django_workflows import activity, workflow


@activity
def nothing(number: int) -> int:
    return number


@workflow
async def sequential(count: int) -> int:
    total = 0
    for number in range(count):
        total += await nothing(number)
    return total


@workflow
async def parallel(count: int) -> int:
    return sum(await asyncio.gather(*(nothing(number) for number in range(count))))

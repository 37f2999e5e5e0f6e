"""Workflows that worker processes of the conformance suite run; autodiscovered there."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from django_workflows import RetryPolicy, Signal, activity, workflow
from tests.testapp.models import Effect

word = Signal("word", str)


@activity(name="processes.add_one", atomic=True)
def add_one(key: str, number: int) -> int:
    Effect.objects.create(key=key, value=number)
    return number + 1


@workflow(name="processes.count")
async def count(key: str, upto: int) -> int:
    """Add one again and again, then the same many times at once."""
    number = 0
    while number < upto:
        number = await add_one(key, number)
    return sum(await asyncio.gather(*[add_one(f"{key} together", number) for number in range(upto)]))


@activity(name="processes.held")
def held(key: str) -> int:
    """Note the attempt, and return its number once the test has written `key released`."""
    Effect.objects.create(key=f"{key} attempt", value=activity.info().attempt)
    ends = time.monotonic() + 60
    while not Effect.objects.filter(key=f"{key} released").exists():
        if time.monotonic() > ends:
            raise TimeoutError(f"the test never wrote {key!r} released")
        time.sleep(0.02)
    return activity.info().attempt


@workflow(name="processes.hold")
async def hold(key: str) -> int:
    return await held(key)


@workflow(name="processes.hold_once")
async def hold_once(key: str) -> int:
    return await held.using(retry=RetryPolicy(max_attempts=1))(key)


@workflow(name="processes.collect")
async def collect(count: int) -> list[str]:
    return [await word.receive() for _ in range(count)]


@workflow(name="processes.nap")
async def nap(seconds: float, times: int) -> list[float]:
    """Sleep some times, and return how long each sleep took by the workflow's own clock."""
    took = []
    for _ in range(times):
        before = workflow.time()
        await workflow.sleep(seconds)
        took.append(workflow.time() - before)
    return took


@activity(name="processes.fail_once", retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(seconds=1)))
def fail_once(key: str) -> float:
    """Fail the first attempt; return how many seconds the second came after it, by the database's clock."""
    Effect.objects.create(key=key)
    if activity.info().attempt == 1:
        raise LookupError("not yet")
    return float(activity.info().attempt)


@workflow(name="processes.retry")
async def retry(key: str) -> float:
    return await fail_once(key)


@activity(name="processes.count_on", retry=RetryPolicy(initial_interval=timedelta(0)))
def count_on(key: str) -> int:
    """Count and report; return where the second attempt could go on."""
    if activity.info().attempt > 1:
        return int(activity.info().heartbeat_details[0])
    for number in range(6000):
        activity.heartbeat(number)
        Effect.objects.update_or_create(key=key, defaults={"value": number})
        time.sleep(0.01)
    raise TimeoutError("the test never killed this process")


@workflow(name="processes.resume")
async def resume(key: str) -> int:
    return await count_on(key)

"""Workflows for tests that kill workers: slow enough to be caught in the middle."""

from __future__ import annotations

import time

from django_workflows import RetryPolicy, activity, workflow
from tests.testapp.models import Effect

_PATIENT = RetryPolicy(max_attempts=None)


@activity(name="reliability.apply_once", atomic=True, retry=_PATIENT)
def apply_once(key: str) -> int:
    Effect.objects.create(key=key)
    time.sleep(0.05)  # open in the middle of its transaction
    return Effect.objects.filter(key=key).count()


@activity(name="reliability.compute", retry=_PATIENT)
def compute(number: int) -> int:
    time.sleep(0.02)
    return number + 1


@workflow(name="reliability.mixed")
async def mixed(name: str, steps: int) -> int:
    total = 0
    for step in range(steps):
        if step % 2:
            total += await compute(step)
        else:
            total += await apply_once(f"{name}-{step}")
    return total

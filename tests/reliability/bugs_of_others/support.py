"""What these tests share: orphans in bulk, and something that happens right behind a read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from django.utils import timezone

from django_workflows import Signal, activity, workflow
from django_workflows.models import ActivityTask, OpenInstance
from django_workflows.retries import RetryPolicy
from tests.conformance.gates import wait_at_gate
from tests.conformance.store_support import start

word = Signal("others.word", str)


@activity(name="others.number")
def number(value: int) -> int:
    return value


@workflow(name="others.numbers")
async def numbers(value: int) -> int:
    return await number(value)


@activity(name="others.held")
def held(key: str) -> int:
    """Wait for the test, and return the number of the attempt."""
    wait_at_gate(key)
    return activity.info().attempt


@workflow(name="others.hold")
async def hold(key: str) -> int:
    return await held(key)


@workflow(name="others.collect")
async def collect(count: int) -> list[str]:
    return [await word.receive() for _ in range(count)]


@workflow(name="others.child")
async def child(value: int) -> int:
    return await number(value)


@workflow(name="others.parent")
async def parent(count: int) -> int:
    return sum(await asyncio.gather(*[child(value) for value in range(count)]))


def tasks_of(owner: int | None, count: int, **changes: Any) -> list[ActivityTask]:
    """Write activity tasks of as many open instances, leased to a worker or waiting for one."""
    now = timezone.now()
    available = now if owner is None else None
    keys = [handle.describe().instance_key for handle in start(count)]
    opened = OpenInstance.objects.filter(pk__in=keys).order_by("chain_id")
    values = {
        "name": "others.number", "queue": "default", "workflow_queue": "default", "owner_id": owner, "attempt": 1,
        "crashes": 1, "available_at": available, "scheduled_at": now, "input": "[[1],{}]",
        "options": json.dumps({"retry": RetryPolicy().to_json()}), **changes,
    }  # fmt: skip
    return ActivityTask.objects.bulk_create(
        [ActivityTask(instance_id=row.instance_id, command=1, chain_id=row.chain_id, **values) for row in opened]
    )

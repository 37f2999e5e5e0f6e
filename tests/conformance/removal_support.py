"""What the tests of removal and retention start, and a count of what is left."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.utils import timezone

from django_workflows import Signal, activity, workflow
from django_workflows.models import Worker, WorkflowInstance

wake = Signal("wake", str)


@activity(name="removal.work", queue="nobody")
def work() -> None: ...


@workflow(name="removal.busy")
async def busy() -> str:
    """Keep a task, a timer and a child open for as long as nobody signals."""
    others = [asyncio.create_task(work()), asyncio.create_task(workflow.sleep(3600)), asyncio.create_task(sleeper())]
    value = await wake.receive()
    for other in others:
        other.cancel()
    return value


@workflow(name="removal.sleeper")
async def sleeper() -> None:
    await workflow.sleep(3600)


@workflow(name="removal.fail")
async def fail() -> None:
    raise LookupError("failed")


@workflow(name="removal.chain")
async def chain(rounds: int) -> int:
    if rounds:
        workflow.continue_as_new(rounds - 1)
    return rounds


@workflow(name="removal.continued_then_waiting")
async def continued_then_waiting(rounds: int) -> str:
    if rounds:
        workflow.continue_as_new(rounds - 1)
    return await wake.receive()


def rows_left() -> dict[str, int]:
    """Count the rows of every table that holds something of an instance."""
    models = [model for model in apps.get_app_config("django_workflows").get_models() if model is not Worker]
    counts = {model.__name__: model._default_manager.count() for model in models}
    return {name: count for name, count in counts.items() if count}


def age(instances: Any, **delta: float) -> None:
    """Make closed instances look as if they had closed that long ago."""
    for row in instances:
        WorkflowInstance.objects.filter(pk=row.pk).update(closed_at=timezone.now() - timedelta(**delta))

"""Small workflows that several test files start."""

from __future__ import annotations

from django_workflows import Signal, activity, workflow
from django_workflows.models import InboxEvent, OpenInstance, WorkflowInstance

go = Signal("go", str)


@workflow(name="instances.wait_for_go")
async def wait_for_go() -> str:
    return await go.receive()


@workflow(name="instances.echo")
async def echo(value: object, factor: float = 1.0) -> object:
    return value


@workflow(name="instances.fail")
async def fail() -> None:
    raise LookupError("no such order")


@activity(name="instances.length")
def length(text: str) -> int:
    return len(text)


@workflow(name="instances.measure")
async def measure(text: str) -> str:
    return text + str(await length(text))


@workflow(name="instances.double")
async def double(text: str) -> str:
    return text + text


def nothing_is_stored() -> bool:
    return not (WorkflowInstance.objects.exists() or OpenInstance.objects.exists() or InboxEvent.objects.exists())

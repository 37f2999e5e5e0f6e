"""What the tests of the commands start."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django_workflows import RetryPolicy, Signal, WorkflowClass, activity, workflow
from django_workflows.codec import JSONCodec

go = Signal("go", str)


class Reversed:
    """A codec that makes payloads unreadable for whoever does not know it."""

    def encode(self, value: object) -> str:
        return json.dumps(JSONCodec().encode(value)[::-1])

    def decode(self, text: str, annotation: Any) -> Any:
        return JSONCodec().decode(json.loads(text)[::-1], annotation)


@dataclass
class Address:
    city: str


@workflow(name="commands.describe", aliases=["commands.old_describe"])
async def describe(number: int, due: date | None = None, *, to: Address | None = None) -> str:
    return f"{number} {due and due.year} {to and to.city}"


@workflow(name="commands.wait")
async def wait(note: str = "") -> str:
    return await go.receive()


@workflow(name="commands.fail")
async def fail() -> None:
    raise LookupError("no such \x1b[31morder")


@workflow(name="commands.rounds")
async def rounds(count: int) -> str:
    if count:
        workflow.continue_as_new(count - 1)
    return await go.receive()


@activity(name="commands.refuse", retry=RetryPolicy(max_attempts=5, initial_interval=timedelta(seconds=90)))
def refuse(order_id: int) -> None:
    raise ConnectionError(f"order {order_id}\nrefused")


@activity(name="commands.elsewhere", queue="nobody")
def elsewhere() -> None: ...


@workflow(name="commands.sleeper")
async def sleeper() -> None:
    await workflow.sleep(3600)


@workflow(name="commands.busy")
async def busy(order_id: int, gift: bool = False) -> str:
    """Keep an activity that is retried, one that nobody runs, a timer and a child at work until a signal comes."""
    calls = (refuse(order_id), elsewhere(), workflow.sleep(7200), sleeper())
    tasks = [asyncio.create_task(call) for call in calls]
    value = await go.receive()
    for task in tasks:
        task.cancel()
    return value


@workflow(name="commands.Ledger")
class Ledger(WorkflowClass):
    def __init__(self) -> None:
        self.entries: dict[str, int] = {}
        self.ended = False

    @workflow.query
    def total(self, since: date | None = None, *, factor: int = 1) -> int:
        days = [day for day in self.entries if since is None or date.fromisoformat(day) >= since]
        return factor * sum(self.entries[day] for day in days)

    @workflow.query
    def all(self) -> dict[str, int]:
        return self.entries

    @workflow.query
    def broken(self) -> None:
        raise LookupError("no such \x1b[31mentry")

    @workflow.update
    def enter(self, day: date, cents: int, *, note: str = "") -> dict[str, int]:
        if note == "forbidden":
            raise LookupError("no such note")
        self.entries[str(day)] = cents
        return self.entries

    @enter.validator
    def check_entry(self, day: date, cents: int, *, note: str = "") -> None:
        if cents < 0:
            raise ValueError(f"expected an amount of 0 or more, found {cents}")

    @workflow.update
    async def never(self) -> None:
        await asyncio.Event().wait()

    @workflow.signal
    def end(self) -> None:
        self.ended = True

    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.ended)

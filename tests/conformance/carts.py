"""A workflow class that several test files start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from django_workflows import WorkflowClass, activity, workflow
from tests.testapp.models import Effect


@dataclass
class Total:
    items: list[str]
    cents: int = 0


class SoldOut(Exception):
    """The shop has none of it."""


@activity(name="carts.price")
def price(sku: str) -> int:
    if sku == "unicorn":
        raise SoldOut(sku, 0)
    return 100 * len(sku)


@workflow(name="carts.Cart")
class Cart(WorkflowClass):
    """Collects items until somebody checks out; "again" begins a new execution with the same items."""

    def __init__(self, owner: str, items: list[str] | None = None) -> None:
        self.owner = owner
        self.total = Total(items or [])
        self.ended = False
        self.lock = asyncio.Lock()

    @workflow.update
    async def add(self, sku: str, count: int = 1) -> Total:
        async with self.lock:
            cents = await price(sku)
            self.total.cents += count * cents
            self.total.items += [sku] * count
        return self.total

    @add.validator
    def check_add(self, sku: str, count: int = 1) -> None:
        if count < 1:
            raise ValueError(f"expected at least one {sku}, found {count}")

    @workflow.update
    def count(self) -> int:
        """Answer as a query would, in turn with the other messages."""
        return len(self.total.items)

    @workflow.update
    async def never(self) -> None:
        await asyncio.Event().wait()

    @workflow.update
    async def last_total(self) -> Total:
        await workflow.wait_condition(lambda: self.ended)
        return self.total

    @workflow.update
    def ask_the_database(self) -> int:
        return Effect.objects.count()

    @workflow.update
    def begin_again(self) -> None:
        workflow.continue_as_new(self.owner, self.total.items)

    @workflow.query
    def content(self) -> Total:
        return self.total

    @workflow.query
    def has(self, sku: str, *, times: int = 1) -> bool:
        return self.total.items.count(sku) >= times

    @workflow.query
    def stored(self) -> int:
        return Effect.objects.count()

    @workflow.query
    def broken(self) -> None:
        raise SoldOut("query", 1)

    @workflow.signal
    def drop(self, sku: str) -> None:
        self.total.items.remove(sku)

    @workflow.signal
    async def replace(self, pair: tuple[str, str]) -> None:
        async with self.lock:
            self.total.items.remove(pair[0])
            await price(pair[1])
            self.total.items.append(pair[1])

    @workflow.signal
    def check_out(self) -> None:
        self.ended = True

    @workflow.signal
    def again(self) -> None:
        workflow.continue_as_new(self.owner, self.total.items)

    async def run(self, owner: str, items: list[str] | None = None) -> list[str]:
        await workflow.wait_condition(lambda: self.ended)
        return self.total.items

"""What mypy makes of workflow classes: it must accept every line here, but for those marked with the error expected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_type

from django_workflows import (
    ChildHandle,
    QueryHandler,
    SignalHandler,
    UpdateHandle,
    UpdateHandler,
    WorkflowClass,
    WorkflowHandle,
    get_handle,
    workflow,
    workflow_of,
)


@dataclass
class Item:
    sku: str


@workflow
class Cart(WorkflowClass):
    def __init__(self, customer_id: int) -> None:
        self.items: list[Item] = []

    @workflow.signal
    def drop(self, sku: str) -> None: ...

    @workflow.signal
    async def check_out(self) -> None: ...

    @workflow.signal(name="remember")
    def on_remember(self, item: Item) -> None: ...

    @workflow.query
    def content(self) -> list[Item]:
        return self.items

    @workflow.query(name="how many")
    def count(self, sku: str = "") -> int:
        return len(self.items)

    @workflow.update
    async def add(self, sku: str, count: int = 1) -> Item:
        return Item(sku)

    @add.validator
    def check_add(self, sku: str, count: int = 1) -> None: ...

    @workflow.update
    def clear(self) -> int:
        return 0

    @workflow.update(name="pay now")
    async def pay(self, cents: int) -> bool:
        return True

    @pay.validator  # error: arg-type
    def check_pay(self, cents: str) -> None: ...

    async def run(self, customer_id: int) -> list[Item]:
        self.drop("book")
        self.content()
        await self.add("book")
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.items


assert_type(Cart.drop, SignalHandler[str])
assert_type(Cart.check_out, SignalHandler[None])
assert_type(Cart.on_remember, SignalHandler[Item])
assert_type(Cart.content, QueryHandler[[], list[Item]])


def use_a_class_with_the_base() -> None:
    handle = Cart.start(3)
    assert_type(handle, WorkflowHandle[list[Item]])
    assert_type(Cart.using(instance_id="cart-3").start(3), WorkflowHandle[list[Item]])
    assert_type(Cart.handle("cart-3").result(), list[Item])

    handle.signal(Cart.drop, "book")
    handle.signal(Cart.check_out)
    handle.signal(Cart.on_remember, Item("book"))
    assert_type(handle.query(Cart.content), list[Item])
    assert_type(handle.query(Cart.count, "book"), int)
    assert_type(handle.query(Cart.count), int)
    assert_type(handle.update(Cart.add, "book", count=3), Item)
    assert_type(handle.update(Cart.clear), int)
    assert_type(handle.start_update(Cart.pay, 3), UpdateHandle[bool])
    assert_type(handle.start_update(Cart.pay, 3).result(timeout=1), bool)
    assert_type(handle.get_update("an id", Cart.pay).result(), bool)
    started = Cart.using(instance_id="cart-3").update_with_start(Cart.add.request("book"), 3)
    assert_type(started, UpdateHandle[Item])
    get_handle("cart-3").update("add", "book")
    get_handle("cart-3").query("content")

    Cart.start("x")  # error: arg-type
    Cart.start()  # error: call-arg
    Cart.using(instance_id="cart-3").start("x")  # error: arg-type
    handle.signal(Cart.drop, 3)  # error: misc
    handle.signal(Cart.drop)  # error: arg-type
    handle.signal(Cart.check_out, "x")  # error: misc
    handle.query(Cart.count, 3)  # error: arg-type, call-overload
    handle.query(Cart.add, "book")  # error: call-overload
    handle.update(Cart.add, 3)  # error: arg-type, call-overload
    handle.update(Cart.add)  # error: call-arg, call-overload
    handle.update(Cart.content)  # error: call-overload
    Cart.add.request(3)  # error: arg-type
    Cart.using(instance_id="x").update_with_start(Cart.add.request("book"))  # error: call-arg
    wrong: str = handle.update(Cart.clear)  # error: assignment
    assert wrong


async def use_the_async_client() -> None:
    handle = await Cart.astart(3)
    assert_type(await handle.aquery(Cart.count, "book"), int)
    assert_type(await handle.aupdate(Cart.add, "book"), Item)
    assert_type(await handle.astart_update(Cart.pay, 3), UpdateHandle[bool])
    await handle.asignal(Cart.drop, "book")

    await Cart.astart("x")  # error: arg-type
    await handle.aupdate(Cart.add, 3)  # error: arg-type, call-overload
    await handle.asignal(Cart.drop, 3)  # error: misc


@workflow
async def parent() -> None:
    child = Cart.start_child(3)
    assert_type(child, ChildHandle[list[Item]])
    assert_type(await child, list[Item])
    await child.signal(Cart.drop, "book")
    assert_type(await Cart.using(queue="slow")(3), list[Item])

    Cart.start_child("x")  # error: arg-type
    await child.signal(Cart.drop, 3)  # error: misc


@workflow(name="typing.Plain", version="2")
@dataclass
class Plain:
    """A class without the base: `workflow_of` says what it is."""

    items: list[str] = field(default_factory=list)

    @workflow.signal
    def stop(self) -> None: ...

    async def run(self, number: int) -> float:
        return number / 2


def use_a_class_without_the_base() -> None:
    handle = workflow_of(Plain).start(3)
    assert_type(handle, WorkflowHandle[float])
    assert_type(workflow_of(Plain).handle("plain").result(), float)
    handle.signal(Plain.stop)
    assert_type(Plain(["x"]).items, list[str])

    workflow_of(Plain).start("x")  # error: arg-type
    Plain.start(3)  # error: attr-defined
    handle.signal(Plain.stop, 3)  # error: misc


class NoRun(WorkflowClass): ...


NoRun.start()  # error: misc


def declare_wrongly() -> None:
    class Wrong:
        @workflow.signal  # error: arg-type
        def two(self, a: int, b: int) -> None: ...

    Wrong()
    update: UpdateHandler[[int], str] = Cart.add  # error: assignment
    assert update

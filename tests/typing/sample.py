"""What mypy makes of the public API: it must accept every line here, but for those marked with the error expected."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from django_workflows import (
    Activity,
    Await,
    Case,
    Channel,
    ChildHandle,
    Default,
    ExternalHandle,
    Receive,
    RetryPolicy,
    Send,
    Signal,
    WorkflowHandle,
    activity,
    get_handle,
    register_type,
    workflow,
)


@dataclass
class Receipt:
    number: str


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class Euros(Money):
    pass


def money_from(cls: type[Money], data: Any) -> Money:
    return cls(data)


register_type(Money, encode=lambda money: money.cents, decode=lambda cls, data: cls(data), subclasses=True)
register_type(Euros, encode=lambda euros: {"cents": euros.cents}, decode=lambda cls, data: cls(data["cents"]))
register_type(Money, encode=vars, decode=money_from)
register_type(Money, encode=lambda money: money.euros, decode=money_from)  # error: attr-defined
register_type(Money, encode=vars, decode=lambda cls, data: 3)  # error: return-value
register_type(Euros, encode=vars, decode=money_from)  # error: arg-type
register_type(Money, encode=vars)  # error: call-arg


@activity
def charge_card(order_id: int, cents: int = 100) -> Receipt:
    return Receipt(f"{order_id}/{cents}")


@activity
async def ship(order_id: int) -> str:
    return str(order_id)


@activity(queue="mail", retry=RetryPolicy(max_attempts=3), start_to_close_timeout=timedelta(seconds=5))
def notify(order_id: int) -> None: ...


@activity(heartbeat_timeout=timedelta(seconds=5))
def print_label(order_id: int) -> str:
    activity.heartbeat(order_id, "half way")
    assert_type(activity.info().heartbeat_timeout, timedelta | None)
    assert_type(activity.defer(), str)
    return ""


@activity(atomic=True)
def mark_paid(order_id: int, receipt: str) -> bool:
    return True


class Payments:
    @activity.method
    def refund(self, order_id: int) -> float:
        return 1.0

    @activity.method
    async def arefund(self, order_id: int) -> float:
        return 1.0


approval = Signal("approval", bool)
items = Signal("items", list[int])


@workflow
async def child(number: int) -> float:
    return number / 2


@workflow(name="typing.fulfil", version="2")
async def fulfil(order_id: int, cents: int = 100) -> Receipt:
    receipt = await charge_card(order_id, cents=cents)
    assert_type(receipt, Receipt)
    assert_type(await ship(order_id), str)
    assert_type(await mark_paid.using(queue="db")(order_id, receipt.number), bool)
    assert_type(await Payments.refund(order_id), float)
    assert_type(await Payments.arefund(order_id), float)
    assert_type(await child(3), float)
    assert_type(await approval.receive(), bool)
    assert_type(approval.receive_nowait(), bool)
    async for found in items:
        assert_type(found, list[int])
    one, two = await asyncio.gather(charge_card(1), ship(2))
    assert_type(one, Receipt)
    assert_type(two, str)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ship(3))
    assert_type(task.result(), str)
    assert_type(workflow.side_effect(lambda: 3), int)
    await workflow.sleep(timedelta(days=1))
    await workflow.wait_condition(lambda: one == receipt, timeout=5)

    await charge_card("x")  # error: arg-type
    await charge_card(1, euros=3)  # error: call-arg
    await charge_card()  # error: call-arg
    await ship.using(queue="db")("x")  # error: arg-type
    await mark_paid(1)  # error: call-arg
    await ship.using(start_to_close_timeout=5)(1)  # error: arg-type, typeddict-item
    await ship.using(colour="red")(1)  # error: call-arg
    await Payments.refund("x")  # error: arg-type
    await child("x")  # error: arg-type
    wrong: int = await ship(1)  # error: assignment
    charge_card(1)  # error: unused-coroutine
    await notify(order_id, wrong)  # error: call-arg
    return receipt


@workflow(retry=RetryPolicy(max_attempts=3))
async def use_children(order_id: int) -> float:
    handle = child.start_child(3)
    assert_type(handle, ChildHandle[float])
    assert_type(await handle, float)
    assert_type(handle.task, asyncio.Task[float])
    assert_type(handle.instance_id, str)
    await handle.started()
    await handle.signal(approval, True)
    await handle.signal("approval", "anything")
    handle.cancel()
    using = child.using(
        instance_id="child-1", queue="slow", retry=RetryPolicy(), parent_close="abandon", attributes={"a": 1},
        subject=object(),
    )  # fmt: skip
    assert_type(await using(order_id), float)
    one, two = await asyncio.gather(child(1), using.start_child(2))
    assert_type(one, float)
    assert_type(two, float)
    other = workflow.handle("order-1")
    assert_type(other, ExternalHandle)
    await other.signal(items, [1])
    await other.cancel("no longer wanted")

    child.start_child("x")  # error: arg-type
    child.using(parent_close="ask")  # error: arg-type, typeddict-item
    child.using(retry=3)  # error: arg-type, typeddict-item
    await handle.signal(approval, 3)  # error: misc
    await other.signal(items, ["x"])  # error: misc
    handle.cancel("because")  # error: call-arg
    wrong: int = await handle  # error: assignment
    return wrong


@workflow
async def select(order_id: int) -> None:
    counts: Channel[int] = Channel(capacity=3)
    names = Channel[str]()
    assert_type(await counts.receive(), int)
    assert_type(names.receive_nowait(), str)
    assert_type(len(counts), int)
    async for name in names:
        assert_type(name, str)
    await counts.send(1)
    names.send_nowait("one")

    answered, counted, sent = Receive(approval), Receive(counts), Send(names, "two")
    shipped, paid = Await(ship(order_id)), Await(asyncio.create_task(charge_card(1)))
    assert_type(answered.result(), bool)
    assert_type(counted.result(), int)
    assert_type(shipped.result(), str)
    assert_type(await paid.future, Receipt)
    assert_type((await workflow.select(answered, answered)).result(), bool)
    assert_type((await workflow.select(paid, paid)).result(), Receipt)
    cases: list[Case[object]] = [answered, counted, shipped, paid, sent, Default()]
    if await workflow.select(*cases) is counted:
        await counts.send(counted.result())
    same: Channel[int] = workflow.Channel()
    await same.send(3)

    await counts.send("x")  # error: arg-type
    names.send_nowait(1)  # error: arg-type
    Send(counts, "x")  # error: misc
    Receive(3)  # error: arg-type
    Await(3)  # error: arg-type
    await workflow.select(answered, shipped.future)  # error: type-var
    wrong: str = counted.result()  # error: assignment
    assert wrong


@workflow
async def for_ever() -> None:
    if workflow.is_replaying():
        workflow.continue_as_new()
    await asyncio.sleep(1)


def use_the_client() -> None:
    handle = fulfil.start(1, cents=3)
    assert_type(handle, WorkflowHandle[Receipt])
    assert_type(handle.result(timeout=1), Receipt)
    handle.signal(approval, True)
    handle.signal(items, [1])
    handle.signal("approval", "anything")
    with_start = fulfil.using(instance_id="order-1").signal_with_start(approval, True, 1, cents=3)
    assert_type(with_start, WorkflowHandle[Receipt])
    fulfil.signal_with_start("approval", "anything", 1)
    fulfil.using(instance_id="order-1", queue="slow").start(1)
    get_handle("order-1").cancel("no longer wanted")
    activity.complete("token", "label")
    activity.fail("token", ValueError("no paper"))
    activity.complete(1, "label")  # error: arg-type
    activity.fail("token", "no paper")  # error: arg-type
    bare: Activity[[int], str] = ship
    assert bare

    fulfil.start("x")  # error: arg-type
    fulfil.start()  # error: call-arg
    fulfil.using(instance_id="x").start(1, 2, 3)  # error: call-arg
    handle.signal(approval, 3)  # error: misc
    fulfil.signal_with_start(approval, True, "x")  # error: arg-type
    fulfil.signal_with_start(approval, True)  # error: call-arg
    fulfil.signal_with_start(approval, 3, 1)  # error: misc, arg-type
    handle.signal(items, ["x"])  # error: misc
    wrong: int = handle.result()  # error: assignment
    assert wrong


async def use_the_async_client() -> None:
    handle = await fulfil.astart(1)
    assert_type(await handle.aresult(), Receipt)
    await handle.asignal(approval, True)
    assert_type(await fulfil.asignal_with_start(approval, True, 1), WorkflowHandle[Receipt])
    await fulfil.astart("x")  # error: arg-type
    await handle.asignal(approval, 3)  # error: misc


@workflow  # error: type-var, arg-type, call-overload, misc
def not_async() -> None: ...

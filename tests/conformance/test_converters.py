"""Registered types, pydantic models and other codecs, through workflows, activities and signals."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import date
from typing import Any

import pytest
from django.test import override_settings
from pydantic import BaseModel

from django_workflows import (
    InstanceStatus,
    Signal,
    activity,
    get_handle,
    register_type,
    registry,
    workflow,
    workflow_of,
)
from django_workflows.authoring import propagation
from django_workflows.codec import JSONCodec
from django_workflows.models import ActivityTask, HistoryEvent, InboxEvent, WorkflowInstance, WorkflowUpdate
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Customer

from .waiting import eventually

# Types of the project's own, and pydantic's


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents


register_type(Money, encode=lambda money: money.cents, decode=lambda cls, cents: cls(cents))


class Bill(BaseModel):
    lines: dict[str, int]
    paid: date | None = None


@activity(name="converters.pay")
def pay(bill: Bill, tip: Money) -> tuple[Bill, Money]:
    return bill.model_copy(update={"paid": date(2026, 3, 1)}), Money(tip.cents + sum(bill.lines.values()))


tips = Signal("tips", Money)


@workflow(name="converters.settle")
async def settle(bill: Bill) -> tuple[Bill, Money]:
    return await pay(bill, await tips.receive())


def test_registered_types_and_pydantic_models_come_back(worker: Worker) -> None:
    bill = Bill(lines={"tea": 300, "cake": 500})
    handle = settle.start(bill)
    handle.signal(tips, Money(100))

    assert handle.result(timeout=20) == (bill.model_copy(update={"paid": date(2026, 3, 1)}), Money(900))


# Another codec


class Sealed:
    """Stores every payload as one text that does not show it."""

    def __init__(self) -> None:
        self.inner = JSONCodec()

    def encode(self, value: object) -> str:
        return json.dumps(base64.b85encode(self.inner.encode(value).encode()).decode())

    def decode(self, text: str, annotation: Any) -> Any:
        return self.inner.decode(base64.b85decode(json.loads(text)).decode(), annotation)


secrets = Signal("secrets", str)


def secret() -> str:
    return "secret from a side effect"


@activity(name="converters.join")
async def join(customer: Customer, *secrets: str) -> str:
    return ", ".join(secrets)


@workflow(name="converters.collect")
async def collect(customer: Customer, first: str, *, last: str = "") -> str:
    return await join(customer, first, await secrets.receive(), workflow.side_effect(secret), last)


SEALED = {"CODEC": f"{__name__}.Sealed"}


def everything_stored() -> str:
    inputs = WorkflowInstance.objects.values_list("input", "result", "failure")
    tasks = ActivityTask.objects.values_list("input")
    return repr([*inputs, *tasks, *(list(m.objects.values_list("data")) for m in (HistoryEvent, InboxEvent))])


@override_settings(DJANGO_WORKFLOWS=SEALED)
def test_another_codec_stores_every_payload(cache_size: int) -> None:
    ada = Customer.objects.create(name="Ada")
    handle = collect.start(ada, "secret argument", last="secret keyword")
    handle.signal(secrets, "secret signal")
    before = everything_stored()
    with running_worker(sticky_cache_size=cache_size):
        result = handle.result(timeout=20)

    assert result == "secret argument, secret signal, secret from a side effect, secret keyword"
    assert get_handle(handle.instance_id).result() == result
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(registry.workflows._definitions, "converters.collect")  # as after its removal from the code
        assert get_handle(handle.instance_id).result() == result
    after = everything_stored()
    assert '"last":' in before and '"secrets"' in before and "converters.join" in after
    for text in (before, after):
        assert "secret " not in text and "testapp.customer" not in text


tenant: ContextVar[str] = ContextVar("converters_tenant")


@activity(name="converters.see_tenant")
def see_tenant() -> str:
    return tenant.get()


@workflow(name="converters.till")
class Till:
    def __init__(self) -> None:
        self.cents = 0

    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.cents > 0)
        workflow.set_attributes(stage="paid")
        return await see_tenant()

    @workflow.update
    def put(self, money: Money) -> Money:
        self.cents += money.cents
        return Money(self.cents)

    @workflow.query
    def content(self, extra: Money) -> Money:
        return Money(self.cents + extra.cents)


@pytest.fixture
def tenants() -> Iterator[None]:
    previous = propagation._propagators
    propagation.use_propagators([propagation.ContextVarPropagator(tenant)])
    token = tenant.set("acme")
    yield
    tenant.reset(token)
    propagation.use_propagators(previous)


@override_settings(DJANGO_WORKFLOWS=SEALED)
def test_updates_and_queries_go_through_it_attributes_and_context_do_not(tenants: None, cache_size: int) -> None:
    handle = workflow_of(Till).start()
    with running_worker(sticky_cache_size=cache_size):
        update = handle.start_update(Till.put, Money(41))
        assert update.result(timeout=20) == Money(41)
        assert handle.result(timeout=20) == "acme"
    assert handle.query(Till.content, Money(1)) == Money(42)
    assert "41" not in json.dumps(list(WorkflowUpdate.objects.values_list("input", "result")))
    assert handle.describe().attributes == {"stage": "paid"}


@workflow(name="converters.give_back")
async def give_back(customer: Customer) -> Customer:
    return customer


def test_input_that_the_codec_cannot_read_blocks_until_it_can(cache_size: int) -> None:
    ada = Customer.objects.create(name="Ada")
    handle = give_back.start(ada)

    with override_settings(DJANGO_WORKFLOWS=SEALED), running_worker(sticky_cache_size=cache_size):
        eventually(lambda: handle.status == InstanceStatus.BLOCKED)
        assert "Cannot decode argument 'customer' of converters.give_back" in (handle.describe().failure or "")
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=20) == ada

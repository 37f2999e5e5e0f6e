"""Payloads of 10 MB wherever there are payloads; and what happens to those that are above what the database takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings

from django_workflows import (
    InstanceStatus,
    PayloadTooLarge,
    RetryPolicy,
    Signal,
    WorkflowClass,
    WorkflowHandle,
    activity,
    workflow,
    workflow_of,
)
from django_workflows.testing import running_worker
from tests.conformance.waiting import eventually
from tests.testapp.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

LARGE = "x" * 10_000_000
TOO_LARGE = 17_000_000  # characters: MariaDB takes statements of 16 MB where nothing else is configured
text = Signal("large.text", str)


@pytest.fixture(autouse=True)
def no_limit_of_ours() -> Iterator[None]:
    with override_settings(DJANGO_WORKFLOWS={"MAX_PAYLOAD_BYTES": 100_000_000}):
        yield


@activity(name="large.same", retry=RetryPolicy(max_attempts=1))
def same(value: str) -> str:
    return value


@activity(name="large.make", retry=RetryPolicy(max_attempts=1))
def make(size: int) -> str:
    return "x" * size


@activity(name="large.make_async", retry=RetryPolicy(max_attempts=1))
async def make_async(size: int) -> str:
    return "x" * size


@activity(name="large.make_atomically", retry=RetryPolicy(max_attempts=1), atomic=True)
def make_atomically(size: int) -> str:
    Effect.objects.create(key="large")
    return "x" * size


@workflow(name="large.Carrier")
class Carrier(WorkflowClass):
    """Carries a value through whatever stores values."""

    @workflow.update
    async def echo(self, value: str) -> str:
        return value

    @workflow.update
    async def grow(self, size: int) -> str:
        return "x" * size

    async def run(self, value: str) -> str:
        returned = await same(value)
        assert returned == await text.receive()
        return returned


@workflow(name="large.makes")
async def makes(what: str, size: int) -> int | str:
    match what:
        case "result":
            return "x" * size
        case "activity result":
            return len(await make(size))
        case "result of an async activity":
            return len(await make_async(size))
        case "result of an atomic activity":
            return len(await make_atomically(size))
        case "activity argument":
            return len(await same("x" * size))
        case "child input":
            return await measure("x" * size)
        case "attributes":
            workflow.set_attributes(text="x" * size)
        case "side effect":
            return len(await workflow.side_effect(lambda: "x" * size))
        case "continued input":
            workflow.continue_as_new("x" * size, 1)
    return 0


@workflow(name="large.measure")
async def measure(value: str) -> int:
    return len(value)


def test_10_mb_are_carried_everywhere() -> None:
    with running_worker():
        handle = workflow_of(Carrier).start(LARGE)
        assert handle.update(Carrier.echo, LARGE) == LARGE
        handle.signal(text, LARGE)
        assert handle.result(timeout=60) == LARGE


def skip_where_everything_fits() -> None:
    if connection.vendor != "mysql":
        pytest.skip("statements of a gigabyte are taken")


def signal(value: str) -> object:
    return workflow_of(Carrier).using(instance_id="a", on_conflict="use_existing").start("a").signal(text, value)


SENDERS: dict[str, Callable[[str], object]] = {
    "start": measure.start,
    "start_many": lambda value: measure.start_many([("a",), (value,)]),
    "signal": signal,
    "signal_with_start": lambda value: measure.using(instance_id="b").signal_with_start(text, value, "a"),
    "update": lambda value: workflow_of(Carrier).start("a").start_update(Carrier.echo, value),
}


@pytest.mark.parametrize("sender", SENDERS)
def test_sender_of_too_much_is_told_so_and_keeps_its_transaction(sender: str) -> None:
    skip_where_everything_fits()
    with transaction.atomic():
        Effect.objects.create(key="before")
        with pytest.raises(PayloadTooLarge, match="max_allowed_packet of 16,777,216 bytes"):
            SENDERS[sender]("x" * TOO_LARGE)
        Effect.objects.create(key="after")
    assert Effect.objects.count() == 2


@pytest.fixture
def steady_worker(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A worker whose incarnation outlives the test, with time for others."""
    with running_worker() as worker:
        incarnation = worker.id
        yield
        assert makes.start("result", 3).result(timeout=60) == "xxx"
        assert worker.id == incarnation
    assert "database fails" not in caplog.text
    assert "unexpected error" not in caplog.text


def stops(handle: WorkflowHandle[Any], status: InstanceStatus) -> str:
    eventually(lambda: handle.status is status, timeout=60)
    return handle.describe().failure or ""


@pytest.mark.parametrize("what", ["activity result", "result of an async activity", "result of an atomic activity"])
def test_activity_that_returns_too_much_fails(what: str, steady_worker: None) -> None:
    skip_where_everything_fits()
    assert "max_allowed_packet" in stops(makes.start(what, TOO_LARGE), InstanceStatus.FAILED)
    assert not Effect.objects.exists()


@pytest.mark.parametrize(
    "what", ["result", "activity argument", "child input", "attributes", "side effect", "continued input"]
)
def test_step_that_decides_too_much_blocks_its_instance(what: str, steady_worker: None) -> None:
    skip_where_everything_fits()
    assert "max_allowed_packet" in stops(makes.start(what, TOO_LARGE), InstanceStatus.BLOCKED)


def test_update_that_answers_too_much_blocks_its_instance(steady_worker: None) -> None:
    skip_where_everything_fits()
    handle = workflow_of(Carrier).start("a")
    handle.start_update(Carrier.grow, TOO_LARGE)
    assert "max_allowed_packet" in stops(handle, InstanceStatus.BLOCKED)

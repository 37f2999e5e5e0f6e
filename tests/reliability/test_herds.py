"""Thousands at once: signals to one instance, children that end together, starts by many. Cost grows as they do.

HERD is how many; `make nightly` sends more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from django_workflows import Signal, workflow
from django_workflows.models import InstanceStatus, OpenInstance, WorkflowInstance
from django_workflows.store import claims
from django_workflows.testing import running_worker
from tests.conformance.waiting import assert_tables_consistent, eventually, in_threads

from .processes import worker_processes
from .workflows import one_of_many

pytestmark = pytest.mark.django_db(transaction=True)

HERD = int(os.environ.get("HERD", "1500"))
PATIENCE = 60 + HERD / 20
ROUND = 100  # signals to an execution

number = Signal("herds.number", int)


@pytest.fixture(autouse=True)
def consistent_tables(transactional_db: None) -> Iterator[None]:
    yield
    assert_tables_consistent()


@pytest.fixture(autouse=True)
def long_histories() -> Iterator[None]:
    """Allow histories that are as long as the herds, and steps that are as slow as a busy machine makes them."""
    with override_settings(DJANGO_WORKFLOWS={"HISTORY_LIMIT": 10 * HERD + 10_000, "STEP_TIME_LIMIT": 15.0}):
        yield


@pytest.fixture(params=[1000, 0], ids=["sticky", "cold"])
def cache_size(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Tell how many rows of inboxes have been read since the start of the test, by polls and by loads."""
    counts = []

    def count(name: str, size: Callable[[Any], int]) -> None:
        original = getattr(claims, name)

        def counting(*args: Any) -> Any:
            found = original(*args)
            counts.append(size(found))
            return found

        monkeypatch.setattr(claims, name, counting)

    count("poll_inbox", len)
    count("_load_inbox", lambda found: sum(map(len, found.values())))
    return lambda: sum(counts)


def send(handle: Any, first: int, last: int) -> None:
    """Signal the numbers of a range, many in a transaction."""
    for start in range(first, last, ROUND):
        with transaction.atomic():
            for value in range(start, min(start + ROUND, last)):
                handle.signal(number, value)


@workflow(name="herds.receive")
async def receive(count: int) -> list[int]:
    return [await number.receive() for _ in range(count)]


@workflow(name="herds.receive_in_rounds")
async def receive_in_rounds(first: int, last: int, out_of_order: list[int]) -> list[int]:
    for expected in range(first, min(first + ROUND, last)):
        if (value := await number.receive()) != expected:
            out_of_order.append(value)
    if first + ROUND < last:
        workflow.continue_as_new(first + ROUND, last, out_of_order)
    return out_of_order


def test_thousands_of_signals_arrive_in_order_once(cache_size: int, rows_read: Callable[[], int]) -> None:
    handle = receive.start(HERD)
    send(handle, 0, HERD // 2)
    with running_worker(sticky_cache_size=cache_size):
        send(handle, HERD // 2, HERD)
        assert handle.result(timeout=PATIENCE) == list(range(HERD))
    assert rows_read() < 8 * HERD


def test_thousands_of_signals_arrive_in_order_once_over_continue_as_new(
    cache_size: int, rows_read: Callable[[], int]
) -> None:
    signals = 2 * HERD
    handle = receive_in_rounds.start(0, signals, [])
    send(handle, 0, signals)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: not OpenInstance.objects.exists(), timeout=PATIENCE)
        assert handle.result(timeout=1) == []
    assert WorkflowInstance.objects.count() == signals // ROUND
    assert rows_read() < 18 * signals  # a page for each load and some polls, so each row at most a few times


@workflow(name="herds.child")
async def child(value: int) -> int:
    await workflow.sleep(0.5)
    return value


@workflow(name="herds.parent")
async def parent(children: int, signals: int) -> tuple[int, list[int]]:
    values = asyncio.gather(*(child(value) for value in range(children)))
    received = [await number.receive() for _ in range(signals)]
    return sum(await values), received


def test_outcomes_of_children_that_end_together_arrive_beside_signals(
    cache_size: int, rows_read: Callable[[], int]
) -> None:
    children, signals = HERD // 5, HERD // 10
    handle = parent.start(children, signals)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: WorkflowInstance.objects.filter(status=InstanceStatus.COMPLETED).exists(), timeout=PATIENCE)
        send(handle, 0, signals)
        assert handle.result(timeout=PATIENCE) == (sum(range(children)), list(range(signals)))
    assert rows_read() < 12 * HERD


def test_a_herd_of_starts_runs_each_once() -> None:
    def start_many(first: int, last: int) -> None:
        for start in range(first, last, 1000):
            one_of_many.start_many([(value,) for value in range(start, min(start + 1000, last))])

    def start_each(first: int, last: int) -> None:
        for value in range(first, last):
            one_of_many.using(instance_id=f"member-{value}").start(value)

    border, fifth = HERD * 4 // 5, HERD // 5
    calls = [lambda at=at: start_many(at, at + 2 * fifth) for at in (0, 2 * fifth)]
    middle = border + fifth // 2
    calls += [lambda: start_each(border, middle), lambda: start_each(middle, HERD)]
    with worker_processes(2, lease=30) as fleet:
        assert in_threads(*calls) == [None] * len(calls)
        eventually(lambda: not OpenInstance.objects.exists(), timeout=PATIENCE)
        assert fleet.stop() == [0, 0]
    rows = list(WorkflowInstance.objects.values_list("instance_id", "status", "result"))
    assert len(rows) == len({instance_id for instance_id, _, _ in rows}) == HERD
    assert {status for _, status, _ in rows} == {InstanceStatus.COMPLETED}
    assert sorted(int(result) for _, _, result in rows if result is not None) == list(range(1, HERD + 1))

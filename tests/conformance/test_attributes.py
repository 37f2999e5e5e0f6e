"""Attributes: what a workflow shows of itself on its row, for the ORM to read and filter by without any worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction

from django_workflows import PayloadError, RetryPolicy, Signal, WorkflowFailed, WorkflowHandle, workflow
from django_workflows.models import WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .store_support import elsewhere, skip_without_row_locks
from .waiting import eventually

change: Signal[dict[str, Any]] = Signal("change", dict[str, Any])
Instances = WorkflowInstance.objects


@workflow(name="attributes.show")
async def show(count: int) -> str:
    """Show what the signals say, so many times."""
    for _ in range(count):
        workflow.set_attributes(**await change.receive())
    return "shown"


@workflow(name="attributes.show_and_leave")
async def show_and_leave(how: str, rounds: int = 1) -> None:
    """Show something in the very step that ends the execution."""
    values = await change.receive()
    workflow.set_attributes(**values)
    if how == "fail":
        raise LookupError("no such order")
    if rounds > 1:
        workflow.continue_as_new(how, rounds - 1)


def attributes(handle: WorkflowHandle[Any]) -> dict[str, Any]:
    found: dict[str, Any] = handle.describe().attributes
    return found


# Reading


def test_they_are_there_while_the_instance_runs_and_afterwards(worker: Worker) -> None:
    handle = show.start(2)
    handle.signal(change, {"stage": "new", "cents": 990})
    eventually(lambda: attributes(handle) == {"stage": "new", "cents": 990})
    handle.signal(change, {"stage": "paid", "receipt": "r-17"})
    handle.result(timeout=10)
    assert attributes(handle) == {"stage": "paid", "cents": 990, "receipt": "r-17"}


def test_they_join_those_of_the_start(consistent_tables: None, cache_size: int) -> None:
    handle = show.using(attributes={"customer": 3, "stage": "new"}).start(1)
    assert attributes(handle) == {"customer": 3, "stage": "new"}
    handle.signal(change, {"stage": "paid"})
    with running_worker(sticky_cache_size=cache_size):
        handle.result(timeout=10)
    assert attributes(handle) == {"customer": 3, "stage": "paid"}


def test_the_last_of_one_step_counts(consistent_tables: None, cache_size: int) -> None:
    handle = show.start(3)
    for stage in ("one", "two", "three"):
        handle.signal(change, {"stage": stage, stage: True})
    with running_worker(sticky_cache_size=cache_size):
        handle.result(timeout=10)
    assert attributes(handle) == {"stage": "three", "one": True, "two": True, "three": True}


VALUES: dict[str, Any] = {
    "text": 'Grüße, "quoted" \\ and 雪',
    "number": 12345678901234,
    "float": 1.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "list": [1, "two", None, [3]],
    "object": {"a": {"b": ["c"]}},
    'odd key\'s "name"': 1,
    "empty": {},
}


def test_all_of_json_comes_back(worker: Worker) -> None:
    handle = show.start(2)
    handle.signal(change, VALUES)
    handle.signal(change, {"another": 1})
    handle.result(timeout=10)
    assert attributes(handle) == {**VALUES, "another": 1}


@workflow(name="attributes.show_objects")
async def show_objects() -> None:
    workflow.set_attributes(at=workflow.now(), price=Decimal("9.90"), tags={"a"})


def test_other_values_are_stored_as_their_json(worker: Worker) -> None:
    handle = show_objects.start()
    handle.result(timeout=10)
    shown = attributes(handle)
    at = datetime.fromisoformat(shown.pop("at"))
    assert at.astimezone(UTC).date() == handle.describe().created_at.date()
    assert shown == {"price": "9.90", "tags": ["a"]}


@workflow(name="attributes.show_unstorable")
async def show_unstorable() -> str:
    try:
        workflow.set_attributes(fine=1, wrong=object())
    except PayloadError as error:
        return str(error)
    return "stored"


def test_what_json_cannot_hold_is_refused_in_the_workflow(worker: Worker) -> None:
    handle = show_unstorable.start()
    assert "attributes of attributes.show_unstorable" in handle.result(timeout=10)
    assert attributes(handle) == {}


# Filtering


def test_filters(worker: Worker) -> None:
    shown = {
        "a": {"stage": "paid", "cents": 500, "vip": True, "address": {"city": "Bonn"}, "tags": ["x"]},
        "b": {"stage": "new", "cents": 1500, "vip": False, "address": {"city": "Köln"}, "note": None},
        "c": {"stage": "paid", "cents": 2500},
    }
    for key, values in shown.items():
        show.using(instance_id=key).start(1).signal(change, values)
    for key in shown:
        show.handle(key).result(timeout=10)

    def found(**conditions: Any) -> str:
        return "".join(Instances.filter(**conditions).order_by("id").values_list("instance_id", flat=True))

    assert found(attributes__stage="paid") == "ac"
    assert found(attributes__stage__in=["new", "old"]) == "b"
    assert found(attributes__cents__gt=1000) == "bc"
    assert found(attributes__vip=True) == "a"
    assert found(attributes__address__city="Köln") == "b"
    assert found(attributes__tags__0="x") == "a"
    assert found(attributes__has_key="note") == "b"
    assert found(attributes__note=None) == "b"
    assert found(attributes__vip__isnull=True) == "c"


# The step that closes


@pytest.mark.parametrize("how", ["return", "fail"])
def test_those_of_the_last_step_are_stored(worker: Worker, how: str) -> None:
    handle = show_and_leave.start(how)
    handle.signal(change, {"last": "word"})
    if how == "fail":
        with pytest.raises(WorkflowFailed):
            handle.result(timeout=10)
    else:
        handle.result(timeout=10)
    assert attributes(handle) == {"last": "word"}


def test_the_next_execution_inherits_them(consistent_tables: None, cache_size: int) -> None:
    handle = show_and_leave.using(attributes={"customer": 3}).start("return", 3)
    for number in range(3):
        handle.signal(change, {"round": number, f"round {number}": True})
    with running_worker(sticky_cache_size=cache_size):
        handle.result(timeout=10)
    rows = list(Instances.order_by("id").values_list("attributes", flat=True))
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert rows[2] == {"customer": 3, "round": 2, "round 0": True, "round 1": True, "round 2": True}


def test_the_next_attempt_inherits_them(worker: Worker) -> None:
    retry = RetryPolicy(max_attempts=2, initial_interval=timedelta(seconds=0.01), jitter=0)
    handle = show_and_leave.using(retry=retry).start("fail")
    handle.signal(change, {"attempt": 1})
    eventually(lambda: Instances.count() == 2)
    assert attributes(handle) == {"attempt": 1}
    handle.signal(change, {"again": True})
    with pytest.raises(WorkflowFailed):
        handle.result(timeout=10)
    assert attributes(handle) == {"attempt": 1, "again": True}


# A row that an application holds


def lock(handle: WorkflowHandle[Any]) -> None:
    Instances.select_for_update().get(pk=handle.describe().pk)


@pytest.mark.parametrize("closing", [False, True], ids=["goes on", "closes"])
def test_a_locked_row_delays_its_instance_and_no_other(worker: Worker, closing: bool) -> None:
    skip_without_row_locks()
    handle = show_and_leave.start("return") if closing else show.start(2)
    other = show.start(1)
    eventually(lambda: handle.history() and other.history())
    with elsewhere(lambda: lock(handle)):
        handle.signal(change, {"stage": "paid"})
        other.signal(change, {"stage": "paid"})
        assert other.result(timeout=10) == "shown"
        assert attributes(handle) == {}
        assert [event.type for event in handle.history()] == ["InstanceStarted"]
    eventually(lambda: attributes(handle) == {"stage": "paid"})
    if not closing:
        handle.signal(change, {"stage": "sent"})
    handle.result(timeout=10)


def test_what_an_application_writes_meanwhile_is_merged_with(worker: Worker) -> None:
    """The row is read under its lock, so nothing that was committed before is overwritten."""
    if connection.vendor == "sqlite":
        pytest.skip("an open write transaction keeps the worker out altogether")
    handle = show.start(1)
    eventually(handle.history)
    with transaction.atomic():
        row = Instances.select_for_update().get(pk=handle.describe().pk)
        row.attributes["by hand"] = True
        row.save(update_fields=["attributes"])
        handle.signal(change, {"stage": "paid"})
    handle.result(timeout=10)
    assert attributes(handle) == {"by hand": True, "stage": "paid"}

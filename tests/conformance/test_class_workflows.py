"""Workflow classes on real workers: handlers of signals, carried over, interleaved, refused what `run` is refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import transaction

from django_workflows import (
    NotAllowedInWorkflowError,
    WorkflowClass,
    WorkflowFailed,
    WorkflowHandle,
    activity,
    workflow,
)
from django_workflows.models import WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect

from .carts import Cart
from .waiting import eventually


def start(*items: str) -> WorkflowHandle[list[str]]:
    return Cart.using(instance_id="cart").start("Ada", list(items))


def test_signals_reach_their_handlers_in_order(worker: Worker) -> None:
    handle = start("a", "b", "c", "d")
    with transaction.atomic():
        for sku in ("b", "d", "a"):
            handle.signal(Cart.drop, sku)
        handle.signal(Cart.check_out)
    assert handle.result(timeout=10) == ["c"]


def test_signals_that_were_sent_before_the_start_ran_are_handled(consistent_tables: None, cache_size: int) -> None:
    handle = start("a", "b")
    handle.signal("drop", "a")
    handle.signal("check_out")
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == ["b"]


def test_handlers_of_signals_and_updates_share_a_lock(consistent_tables: None, cache_size: int) -> None:
    handle = start("a")
    updates = [handle.start_update(Cart.add, "b")]
    handle.signal(Cart.replace, ("a", "x"))
    updates.append(handle.start_update(Cart.add, "c"))
    handle.signal(Cart.replace, ("b", "y"))
    with running_worker(sticky_cache_size=cache_size):
        assert [update.result(timeout=10).items for update in updates] == [["a", "b"], ["b", "x", "c"]]
        handle.signal(Cart.check_out)
        handle.result(timeout=10)
    assert handle.query(Cart.content).items == ["x", "c", "y"]


def test_a_workflow_that_returns_waits_for_its_handlers(worker: Worker) -> None:
    handle = start("a")
    with transaction.atomic():
        handle.signal(Cart.replace, ("a", "b"))
        handle.signal(Cart.check_out)
    assert handle.result(timeout=10) == [], "as it was when run returned"
    assert handle.query(Cart.content).items == ["b"], "the handler went on to its end"


def test_signals_that_no_execution_has_handled_go_to_the_next(consistent_tables: None, cache_size: int) -> None:
    handle = start("a", "b", "c")
    handle.signal(Cart.again)
    for sku in ("a", "c"):
        handle.signal(Cart.drop, sku)
    handle.signal(Cart.again)
    handle.signal(Cart.check_out)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=20) == ["b"]
    assert WorkflowInstance.objects.count() == 3


def test_a_handler_that_raises_fails_the_instance(worker: Worker) -> None:
    handle = start("a")
    handle.signal(Cart.drop, "b")
    with pytest.raises(WorkflowFailed, match="not in list") as caught:
        handle.result(timeout=10)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_value_that_does_not_fit_is_kept_and_logged_once(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    handle = start("a")
    with caplog.at_level(logging.WARNING, logger="django_workflows"):
        handle.signal("drop", ["not", "a", "text"])
        handle.signal("drop", "a")
        handle.signal(Cart.check_out)
        assert handle.result(timeout=10) == []
    assert len([record for record in caplog.records if "'drop' skipped" in record.getMessage()]) == 1
    assert [event.data["value"] for event in handle.history() if event.type == "SignalReceived"][:2] == [
        ["not", "a", "text"],
        "a",
    ]


@activity(name="classes.store", atomic=True)
def store(key: str) -> int:
    Effect.objects.create(key=key)
    return Effect.objects.filter(key=key).count()


@workflow(name="classes.Careless")
class Careless(WorkflowClass):
    """Does in each place what only activities may do."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.look("init")

    def look(self, where: str) -> None:
        if where == self.where:
            Effect.objects.count()

    @workflow.signal
    def poke(self) -> None:
        self.look("signal")

    async def run(self, where: str) -> Any:
        self.look("run")
        await workflow.wait_condition(lambda: self.look("condition"))


@pytest.mark.parametrize("where", ["init", "signal", "run", "condition"])
def test_the_orm_is_refused_wherever_workflow_code_runs(worker: Worker, where: str) -> None:
    handle = Careless.start(where)
    handle.signal(Careless.poke)
    with pytest.raises(WorkflowFailed) as caught:
        handle.result(timeout=10)
    assert isinstance(caught.value.__cause__, NotAllowedInWorkflowError)
    assert "move the query into an activity" in str(caught.value.__cause__)


# Children and functions that are handed in by other means


@workflow(name="classes.parent")
async def parent() -> list[str]:
    child = Cart.using(instance_id="a child").start_child("Ada", ["a", "b"])
    await child.signal(Cart.drop, "a")
    await child.signal(Cart.check_out)
    return await child


def test_a_class_is_a_child_like_any_workflow(worker: Worker) -> None:
    assert parent.start().result(timeout=10) == ["b"]


@workflow(name="classes.Saver")
class Saver(WorkflowClass):
    def __init__(self) -> None:
        self.saved: list[int] = []

    @workflow.update
    async def save(self, key: str) -> int:
        self.saved.append(await store(key))
        return self.saved[-1]

    async def run(self) -> None:
        await workflow.wait_condition(lambda: len(self.saved) == 3)


def test_atomic_activities_in_handlers_take_effect_once(worker: Worker) -> None:
    handle = Saver.start()
    assert [handle.update(Saver.save, key) for key in ("x", "y", "x")] == [1, 1, 2]
    handle.result(timeout=10)
    eventually(lambda: Effect.objects.count() == 3)

"""Queries: answered in the asking process from the stored history, whatever state the instance is in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_workflows import (
    InstanceNotFound,
    InstanceStatus,
    NondeterminismError,
    NotAllowedInWorkflowError,
    PayloadError,
    UnknownHandlerError,
    UnknownWorkflowError,
    WorkflowFailed,
    WorkflowHandle,
    activity,
    get_handle,
    registry,
    workflow,
    workflow_of,
)
from django_workflows.models import HistoryEvent, InboxEvent, WorkflowUpdate
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .carts import Cart, SoldOut, Total
from .samples import echo
from .waiting import eventually


def start(instance_id: str = "cart") -> WorkflowHandle[list[str]]:
    return Cart.using(instance_id=instance_id).start("Ada")


def begun(handle: WorkflowHandle[Any]) -> bool:
    return bool(handle.history())


# Whatever state the instance is in


def test_a_running_instance_answers_with_what_it_has_recorded(worker: Worker) -> None:
    handle = start()
    handle.update(Cart.add, "book", 2)
    assert handle.query(Cart.content) == Total(["book", "book"], 800)
    assert handle.query(Cart.has, "book", times=2) is True
    assert handle.query("has", "pen") is False


def test_an_instance_that_has_not_begun_answers_from_its_first_state(consistent_tables: None) -> None:
    handle = Cart.using(instance_id="cart").start("Ada", ["pen"])
    assert handle.query(Cart.content) == Total(["pen"])


def test_no_worker_is_needed(consistent_tables: None, cache_size: int) -> None:
    handle = start()
    with running_worker(sticky_cache_size=cache_size):
        handle.update(Cart.add, "book")
    handle.signal(Cart.drop, "book")
    assert handle.query(Cart.content) == Total(["book"], 400), "what waits in the inbox has not happened yet"


ENDS: dict[str, Callable[[WorkflowHandle[Any]], None]] = {
    "completed": lambda handle: handle.signal(Cart.check_out),
    "failed": lambda handle: handle.signal(Cart.drop, "what is not there"),
    "cancelled": lambda handle: handle.cancel(),
    "terminated": lambda handle: handle.terminate(),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_closed_instance_answers_from_its_last_state(worker: Worker, end: str) -> None:
    handle = start()
    handle.update(Cart.add, "book")
    ENDS[end](handle)
    eventually(lambda: handle.status == end)
    assert handle.query(Cart.content) == Total(["book"], 400)


def test_an_instance_that_was_terminated_before_it_began_answers_too(consistent_tables: None) -> None:
    handle = start()
    handle.terminate()
    assert handle.query(Cart.content) == Total([])


def test_a_blocked_instance_answers_where_its_code_is(
    consistent_tables: None, cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = start()
    with running_worker(sticky_cache_size=cache_size):
        handle.update(Cart.add, "book")
    with monkeypatch.context() as patch:
        patch.delitem(registry.workflows._definitions, "carts.Cart")
        handle.signal(Cart.drop, "book")
        with running_worker(sticky_cache_size=cache_size):
            eventually(lambda: handle.status is InstanceStatus.BLOCKED)
            with pytest.raises(UnknownWorkflowError, match=r"carts\.Cart"):
                handle.query(Cart.content)
            with pytest.raises(UnknownWorkflowError, match=r"carts\.Cart"):
                handle.query("content")
    assert handle.query(Cart.content) == Total(["book"], 400)


def test_a_history_that_does_not_replay_says_why(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = start()
    handle.update(Cart.add, "book")
    updates: Any = workflow_of(Cart).definition.handlers["update"]
    monkeypatch.setitem(updates, "add", updates["count"])
    with pytest.raises((NondeterminismError, PayloadError)):
        handle.query(Cart.content)


def test_the_newest_execution_answers_unless_the_handle_is_bound(worker: Worker) -> None:
    handle = start()
    first = Cart.handle("cart", handle.describe().execution_id)
    handle.update(Cart.add, "book")
    handle.signal(Cart.again)
    handle.update(Cart.add, "pen")
    assert handle.query(Cart.content).items == ["book", "pen"]
    assert first.query(Cart.content) == Total(["book"], 400)


def test_unknown_and_removed_instances(worker: Worker) -> None:
    handle = start()
    with pytest.raises(InstanceNotFound):
        Cart.handle("nobody").query(Cart.content)
    handle.signal(Cart.check_out)
    handle.result(timeout=10)
    handle.remove()
    with pytest.raises(InstanceNotFound):
        handle.query(Cart.content)


# What is asked


def test_unknown_names_and_wrong_arguments(consistent_tables: None) -> None:
    handle = start()
    with pytest.raises(
        UnknownHandlerError, match=r"query 'contents' in the workflow carts\.Cart, found broken, content"
    ):
        handle.query("contents")
    with pytest.raises(UnknownHandlerError, match="it is a function"):
        echo.start(1).query("content")
    with pytest.raises(UnknownHandlerError, match="it is a function"):
        get_handle(echo.start(1).instance_id).query(Cart.content)
    with pytest.raises(TypeError, match="sku"):
        handle.query("has")
    unstorable: Any = object()
    with pytest.raises(PayloadError):
        handle.query(Cart.has, unstorable)


def test_what_the_handler_raises_is_raised_as_it_is(consistent_tables: None) -> None:
    with pytest.raises(SoldOut) as caught:
        start().query(Cart.broken)
    assert caught.value.args == ("query", 1)


def test_the_orm_is_refused_in_queries_as_in_all_workflow_code(consistent_tables: None) -> None:
    with pytest.raises(NotAllowedInWorkflowError, match="move the query into an activity"):
        start().query(Cart.stored)


def test_it_changes_nothing(worker: Worker) -> None:
    handle = start()
    handle.update(Cart.add, "book")
    before = list(HistoryEvent.objects.order_by("pk").values())
    for _ in range(3):
        handle.query(Cart.content).items.append("changed by the caller")
    assert handle.query(Cart.content).items == ["book"]
    assert list(HistoryEvent.objects.order_by("pk").values()) == before
    assert not InboxEvent.objects.exists()
    assert WorkflowUpdate.objects.count() == 1


# Where it is asked


def test_inside_a_transaction_it_sees_what_the_transaction_sees(consistent_tables: None) -> None:
    with transaction.atomic():
        handle = Cart.using(instance_id="cart").start("Ada", ["pen"])
        assert handle.query(Cart.content).items == ["pen"]
        transaction.set_rollback(True)
    with pytest.raises(InstanceNotFound):
        handle.query(Cart.content)


def show(request: HttpRequest, cart: str) -> JsonResponse:
    total = Cart.handle(cart).query(Cart.content)
    return JsonResponse({"items": total.items})


async def ashow(request: HttpRequest, cart: str) -> JsonResponse:
    totals = await asyncio.gather(*[Cart.handle(cart).aquery(Cart.content) for _ in range(5)])
    return JsonResponse({"items": [total.items for total in totals]})


urlpatterns = [path("carts/<str:cart>/", show), path("async/carts/<str:cart>/", ashow)]


@pytest.mark.urls(__name__)
def test_in_views(worker: Worker) -> None:
    start().update(Cart.add, "book")
    assert Client().get("/carts/cart/").json() == {"items": ["book"]}
    assert Client().get("/async/carts/cart/").json() == {"items": [["book"]] * 5}

    async def asgi() -> Any:
        sync, answer = [await AsyncClient().get(url) for url in ("/carts/cart/", "/async/carts/cart/")]
        return sync.json(), answer.json()

    assert async_to_sync(asgi)() == ({"items": ["book"]}, {"items": [["book"]] * 5})


@activity(name="queries.ask")
def ask(cart: str) -> list[str]:
    return Cart.handle(cart).query(Cart.content).items


@activity(name="queries.aask")
async def aask(cart: str) -> list[str]:
    total = await Cart.handle(cart).aquery(Cart.content)
    return total.items


@activity(name="queries.ask_atomically", atomic=True)
def ask_atomically(cart: str) -> list[str]:
    return Cart.handle(cart).query(Cart.content).items


@workflow(name="queries.ask_in_activities")
async def ask_in_activities(cart: str) -> list[list[str]]:
    found: list[Awaitable[list[str]]] = [ask(cart), aask(cart), ask_atomically(cart)]
    return await asyncio.gather(*found)


def test_in_activities(worker: Worker) -> None:
    start().update(Cart.add, "book")
    assert ask_in_activities.start("cart").result(timeout=20) == [["book"]] * 3


@workflow(name="queries.ask_in_workflow")
async def ask_in_workflow(cart: str) -> list[str]:
    return Cart.handle(cart).query(Cart.content).items


def test_in_workflows_it_is_refused(worker: Worker) -> None:
    start()
    with pytest.raises(WorkflowFailed) as caught:
        ask_in_workflow.start("cart").result(timeout=10)
    assert isinstance(caught.value.__cause__, NotAllowedInWorkflowError)


def test_beside_a_worker_that_holds_the_instance(worker: Worker) -> None:
    """The asking process replays for itself: it neither waits for the worker nor disturbs it."""
    if connection.vendor == "sqlite":
        pytest.skip("an open write transaction keeps the worker out altogether")
    handle = start()
    update = handle.start_update(Cart.never)
    eventually(lambda: begun(handle))
    for _ in range(5):
        assert handle.query(Cart.content).items == []
    handle.update(Cart.add, "book")
    assert handle.query(Cart.content).items == ["book"]
    handle.terminate()
    assert update.update_id

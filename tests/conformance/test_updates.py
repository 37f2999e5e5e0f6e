"""Updates: rows that are accepted with no worker online, and answered whatever becomes of the instance."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, connections, transaction

from django_workflows import (
    InstanceNotFound,
    InstanceNotRunning,
    InstanceStatus,
    NotAllowedInWorkflowError,
    PayloadError,
    ResultInTransactionError,
    UnknownHandlerError,
    UpdateFailed,
    UpdateHandle,
    UpdateNotAnswered,
    UpdateRejected,
    WorkflowHandle,
    get_handle,
    registry,
    workflow_of,
)
from django_workflows.models import HistoryEvent, InboxEvent, WorkflowInstance, WorkflowUpdate
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .carts import Cart, SoldOut, Total
from .samples import echo
from .waiting import eventually, in_threads

PENDING, ACCEPTED, COMPLETED, FAILED, REJECTED = WorkflowUpdate.Status


def start(instance_id: str = "cart") -> WorkflowHandle[list[str]]:
    return Cart.using(instance_id=instance_id).start("Ada")


def types(handle: WorkflowHandle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


# Answers


def test_the_answer_is_what_the_handler_returns(worker: Worker) -> None:
    handle = start()
    assert handle.update(Cart.add, "book") == Total(["book"], 400)
    assert handle.update(Cart.add, "pen", count=2) == Total(["book", "pen", "pen"], 1000)
    assert handle.update(Cart.count) == 3
    handle.signal(Cart.check_out)
    assert handle.result(timeout=10) == ["book", "pen", "pen"]


def test_it_is_accepted_with_no_worker_online(cache_size: int, consistent_tables: None) -> None:
    handle = start()
    update = handle.start_update(Cart.add, "book")
    assert (update.status, update.describe().name) == (PENDING, "add")
    with pytest.raises(TimeoutError, match="is pending after 0 s"):
        update.result(timeout=0)
    with running_worker(sticky_cache_size=cache_size):
        assert update.result(timeout=10) == Total(["book"], 400)
    assert update.status is COMPLETED
    assert update.result() == Total(["book"], 400), "the row keeps the answer"


def test_an_accepted_one_says_so_while_its_handler_waits(worker: Worker) -> None:
    handle = start()
    update = handle.start_update(Cart.never)
    eventually(lambda: update.status is ACCEPTED)
    with pytest.raises(TimeoutError, match="is accepted"):
        update.result(timeout=0)
    handle.terminate()


def test_updates_are_taken_in_the_order_in_which_they_were_asked_for(cache_size: int, consistent_tables: None) -> None:
    handle = start()
    updates = [handle.start_update(Cart.add, f"sku {number}") for number in range(20)]
    with running_worker(sticky_cache_size=cache_size):
        answers = [update.result(timeout=20) for update in updates]
    assert answers[-1].items == [f"sku {number}" for number in range(20)]
    assert [len(answer.items) for answer in answers] == list(range(1, 21))


def test_the_answer_can_be_had_later_and_elsewhere(worker: Worker) -> None:
    update_id = start().start_update(Cart.add, "book").update_id
    assert Cart.handle("cart").get_update(update_id, Cart.add).result(timeout=10) == Total(["book"], 400)
    assert get_handle("cart").get_update(update_id).result() == {"items": ["book"], "cents": 400}
    with pytest.raises(InstanceNotFound, match="is gone"):
        get_handle("cart").get_update(uuid.uuid4().hex).result()


def test_by_name(worker: Worker) -> None:
    start()
    assert get_handle("cart").update("add", "book", count=2) == Total(["book", "book"], 800)


def test_async_twins(worker: Worker) -> None:
    async def main() -> list[Any]:
        handle = await Cart.using(instance_id="cart").astart("Ada")
        first = await handle.astart_update(Cart.add, "book")
        return [await first.aresult(timeout=10), await handle.aupdate(Cart.count), await first.astatus()]

    assert async_to_sync(main)() == [Total(["book"], 400), 1, COMPLETED]


# Rejected and failed


def test_what_the_validator_raises_rejects_it_and_leaves_nothing_in_the_history(worker: Worker) -> None:
    handle = start()
    handle.update(Cart.count)
    before = types(handle)
    update = handle.start_update(Cart.add, "book", 0)
    with pytest.raises(UpdateRejected, match="expected at least one book, found 0") as caught:
        update.result(timeout=10)
    assert isinstance(caught.value.__cause__, ValueError)
    assert (update.status, types(handle)) == (REJECTED, before)
    assert handle.update(Cart.count) == 0


def test_what_the_handler_raises_fails_it_and_not_the_instance(worker: Worker) -> None:
    handle = start()
    update = handle.start_update(Cart.add, "unicorn")
    with pytest.raises(UpdateFailed, match="SoldOut") as caught:
        update.result(timeout=10)
    assert isinstance(caught.value.__cause__, SoldOut)
    assert caught.value.__cause__.args == ("unicorn", 0)
    assert (update.status, handle.status) == (FAILED, InstanceStatus.RUNNING)
    assert handle.update(Cart.count) == 0


def test_the_orm_is_refused_in_handlers(worker: Worker) -> None:
    with pytest.raises(UpdateFailed, match="move the query into an activity") as caught:
        start().update(Cart.ask_the_database)
    assert isinstance(caught.value.__cause__, NotAllowedInWorkflowError)


def test_what_the_class_does_not_have_is_refused_at_once(consistent_tables: None) -> None:
    handle = start()
    with pytest.raises(UnknownHandlerError, match=r"update 'ad' in the workflow carts\.Cart, found add, "):
        handle.start_update("ad", "book")
    with pytest.raises(UnknownHandlerError, match="it is a function"):
        echo.start(1).start_update("add", "book")
    with pytest.raises(TypeError, match="missing a required argument: 'sku'"):
        handle.start_update("add")
    unstorable: Any = object()
    with pytest.raises(PayloadError, match="argument 'sku'"):
        handle.start_update(Cart.add, unstorable)
    assert not WorkflowUpdate.objects.exists()


def test_what_the_workers_class_does_not_have_is_rejected(
    consistent_tables: None, cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = start()
    update = handle.start_update(Cart.count)
    updates: Any = workflow_of(Cart).definition.handlers["update"]
    monkeypatch.delitem(updates, "count")
    with running_worker(sticky_cache_size=cache_size), pytest.raises(UpdateRejected, match="update 'count'") as caught:
        update.result(timeout=10)
    assert isinstance(caught.value.__cause__, UnknownHandlerError)


# Transactions


def test_rolled_back_it_was_never_asked_for(worker: Worker) -> None:
    handle = start()
    handle.update(Cart.count)
    with transaction.atomic():
        update = handle.start_update(Cart.add, "book")
        transaction.set_rollback(True)
    assert WorkflowUpdate.objects.filter(name="add").count() == 0
    assert not InboxEvent.objects.exists()
    with pytest.raises(InstanceNotFound, match="with its instance or its transaction"):
        update.result(timeout=0)
    assert handle.update(Cart.count) == 0


def test_it_reaches_the_instance_with_the_commit(worker: Worker) -> None:
    handle = start()
    with transaction.atomic():
        update = handle.start_update(Cart.add, "book")
        assert update.status is PENDING
        with pytest.raises(ResultInTransactionError, match="inside an open transaction"):
            update.result(timeout=1)
    assert update.result(timeout=10) == Total(["book"], 400)


def test_waiting_inside_a_transaction_asks_for_nothing(worker: Worker) -> None:
    handle = start()
    with transaction.atomic(), pytest.raises(ResultInTransactionError, match=r"use start_update\(\)"):
        handle.update(Cart.add, "book")
    assert not WorkflowUpdate.objects.exists()
    assert handle.update(Cart.count) == 0


# Many


def test_a_thousand_updates_of_one_instance(consistent_tables: None, cache_size: int) -> None:
    handle = start()
    count = 1000 if cache_size else 200  # a cold worker replays what is there for each page of messages
    with transaction.atomic():
        updates = [handle.start_update(Cart.count) for _ in range(count)]
    with running_worker(sticky_cache_size=cache_size):
        assert [update.result(timeout=60) for update in updates] == [0] * count
    assert types(handle).count("UpdateCompleted") == count


def test_two_workers_answer_each_update_once(cache_size: int, consistent_tables: None) -> None:
    handles = [start(f"cart {number}") for number in range(10)]
    with running_worker(sticky_cache_size=cache_size), running_worker(sticky_cache_size=cache_size):
        updates = [handle.start_update(Cart.add, "pen") for _ in range(5) for handle in handles]
        for update in updates:
            update.result(timeout=20)
        assert [handle.update(Cart.count) for handle in handles] == [5] * 10
    assert [types(handle).count("UpdateCompleted") for handle in handles] == [6] * 10


def test_an_update_that_one_worker_accepted_is_answered_by_the_next(consistent_tables: None, cache_size: int) -> None:
    handle = start()
    update = handle.start_update(Cart.last_total)
    with running_worker(sticky_cache_size=cache_size):
        handle.update(Cart.add, "book")
        assert update.status is ACCEPTED
    handle.signal(Cart.check_out)
    with running_worker(sticky_cache_size=cache_size):
        assert update.result(timeout=10) == Total(["book"], 400)
        assert handle.result(timeout=10) == ["book"]
    assert types(handle).count("UpdateCompleted") == 2


# The instance is not there to answer


def test_a_blocked_instance_answers_when_it_runs_on(
    consistent_tables: None, cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = start()
    update = handle.start_update(Cart.add, "book")
    with monkeypatch.context() as patch:
        patch.delitem(registry.workflows._definitions, "carts.Cart")
        with running_worker(sticky_cache_size=cache_size):
            eventually(lambda: handle.status is InstanceStatus.BLOCKED)
            later = handle.start_update(Cart.count)
            eventually(lambda: not InboxEvent.objects.filter(queue__isnull=False).exists())
            assert (update.status, later.status) == (PENDING, PENDING)
    with running_worker(sticky_cache_size=cache_size):
        assert update.result(timeout=10) == Total(["book"], 400)
        assert later.result(timeout=10) in (0, 1)


def test_a_blocked_instance_that_is_terminated_answers_none(
    consistent_tables: None, cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = start()
    update = handle.start_update(Cart.count)
    monkeypatch.delitem(registry.workflows._definitions, "carts.Cart")
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: handle.status is InstanceStatus.BLOCKED)
        eventually(lambda: not InboxEvent.objects.filter(queue__isnull=False).exists())
        handle.terminate()
        with pytest.raises(UpdateNotAnswered):
            update.result(timeout=10)


def fail(handle: WorkflowHandle[Any]) -> None:
    handle.signal(Cart.drop, "what is not there")


ENDS: dict[str, tuple[Callable[[WorkflowHandle[Any]], None], InstanceStatus]] = {
    "failed": (fail, InstanceStatus.FAILED),
    "cancelled": (lambda handle: handle.cancel(), InstanceStatus.CANCELLED),
    "terminated": (lambda handle: handle.terminate(), InstanceStatus.TERMINATED),
    "replaced": (
        lambda handle: Cart.using(instance_id="cart", on_conflict="terminate_existing").start("Bea") and None,
        InstanceStatus.TERMINATED,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_accepted_update_fails_when_the_instance_ends_otherwise(worker: Worker, end: str) -> None:
    close, status = ENDS[end]
    handle = Cart.handle("cart", start().describe().execution_id)
    update = handle.start_update(Cart.never)
    eventually(lambda: update.status is ACCEPTED)
    close(handle)
    with pytest.raises(UpdateNotAnswered):
        update.result(timeout=10)
    assert (update.status, handle.status) == (FAILED, status)
    if end == "replaced":
        assert Cart.handle("cart").update(Cart.count) == 0
        Cart.handle("cart").terminate()


@pytest.mark.parametrize("end", ["terminated", "replaced"])
def test_an_update_that_waits_is_not_answered_when_the_instance_ends(consistent_tables: None, end: str) -> None:
    handle = start()
    update = handle.start_update(Cart.count)
    ENDS[end][0](handle)
    with pytest.raises(UpdateNotAnswered, match="closed before it answered"):
        update.result(timeout=10)
    assert update.status is PENDING
    with running_worker():
        eventually(lambda: update.status is REJECTED)
    with pytest.raises(UpdateNotAnswered, match="had closed before the update reached it"):
        update.result(timeout=10)


def test_a_workflow_that_returns_answers_what_it_has_accepted(worker: Worker) -> None:
    handle = start()
    with transaction.atomic():
        update = handle.start_update(Cart.add, "book")
        handle.signal(Cart.check_out)
        late = handle.start_update(Cart.count)
    assert update.result(timeout=10) == Total(["book"], 400)
    with pytest.raises(UpdateNotAnswered):
        late.result(timeout=10)
    assert late.status is REJECTED


def test_closed_and_unknown_instances_take_no_updates(worker: Worker) -> None:
    handle = start()
    handle.signal(Cart.check_out)
    handle.result(timeout=10)
    with pytest.raises(InstanceNotRunning):
        handle.start_update(Cart.count)
    with pytest.raises(InstanceNotFound):
        Cart.handle("nobody").update(Cart.count)
    with pytest.raises(InstanceNotFound):
        get_handle("nobody").update("count")
    assert not WorkflowUpdate.objects.exists()


def test_an_update_that_commits_after_the_close_is_not_answered(worker: Worker) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("an open write transaction keeps the worker out altogether")
    handle = start()

    def close() -> list[str]:
        handle.signal(Cart.check_out)
        return handle.result(timeout=10)

    with transaction.atomic():
        update = handle.start_update(Cart.count)
        assert in_threads(close) == [[]]
    with pytest.raises(UpdateNotAnswered):
        update.result(timeout=10)
    eventually(lambda: update.status is REJECTED)


def test_updates_that_race_the_close_never_hang(worker: Worker) -> None:
    """Each is answered, or its caller hears that it never will be."""

    def ask(handle: WorkflowHandle[Any]) -> str:
        try:
            handle.start_update(Cart.count).result(timeout=20)
        except (InstanceNotRunning, UpdateNotAnswered):
            return "late"
        return "answered"

    def ask_all(number: int) -> list[str]:
        try:
            return [ask(Cart.handle(f"cart {number}")) for _ in range(5)]
        finally:
            connections.close_all()

    outcomes: list[str] = []
    for number in range(8):
        handle = start(f"cart {number}")
        results = in_threads(
            lambda number=number: ask_all(number),  # type: ignore[misc]
            lambda number=number: ask_all(number),  # type: ignore[misc]
            lambda handle=handle: handle.signal(Cart.check_out),  # type: ignore[misc]
        )
        handle.result(timeout=20)
        assert results[2] is None
        for result in results[:2]:
            assert isinstance(result, list), result
            outcomes += result
    assert len(outcomes) == 80 and set(outcomes) <= {"late", "answered"}


# Continue as new


def test_updates_that_wait_go_to_the_next_execution(consistent_tables: None, cache_size: int) -> None:
    handle = start()
    updates = [handle.start_update(Cart.add, "book")]
    handle.signal(Cart.again)
    updates += [handle.start_update(Cart.add, "pen"), handle.start_update(Cart.add, "cup")]
    with running_worker(sticky_cache_size=cache_size):
        # The first is under way when its execution ends; the others have not been read by then.
        with pytest.raises(UpdateNotAnswered):
            updates[0].result(timeout=10)
        assert [update.result(timeout=10).items for update in updates[1:]] == [["pen"], ["pen", "cup"]]
    assert WorkflowInstance.objects.filter(status=InstanceStatus.CONTINUED_AS_NEW).count() == 1


def test_a_handler_that_continues_as_new_is_not_answered(worker: Worker) -> None:
    handle = start()
    handle.update(Cart.add, "book")
    with pytest.raises(UpdateNotAnswered):
        handle.update(Cart.begin_again)
    assert handle.update(Cart.count) == 1
    assert WorkflowInstance.objects.count() == 2


def test_an_update_of_one_execution_is_not_answered_by_the_next(consistent_tables: None, cache_size: int) -> None:
    handle = start()
    bound = Cart.handle("cart", handle.describe().execution_id)
    with transaction.atomic():
        handle.signal(Cart.again)
        update = bound.start_update(Cart.count)
    with running_worker(sticky_cache_size=cache_size):
        with pytest.raises(UpdateNotAnswered, match="had ended before it read it"):
            update.result(timeout=10)
        assert update.status is REJECTED
        assert handle.update(Cart.count) == 0
        with pytest.raises(InstanceNotRunning):
            bound.start_update(Cart.count)


# Removal


def test_removal_takes_the_updates_of_the_chain(worker: Worker) -> None:
    handle, other = start(), start("other")
    handle.update(Cart.count)
    other.update(Cart.count)
    handle.signal(Cart.again)
    update = handle.start_update(Cart.count)
    update.result(timeout=10)
    handle.signal(Cart.check_out)
    handle.result(timeout=10)
    handle.remove()
    assert [row.chain_id for row in WorkflowUpdate.objects.all()] == [other.describe().chain]
    with pytest.raises(InstanceNotFound):
        update.result()


# With start


def with_start(sku: str = "book") -> UpdateHandle[Total]:
    return Cart.using(instance_id="cart").update_with_start(Cart.add.request(sku), "Ada")


def test_with_start_begins_the_instance_that_is_not_there(worker: Worker) -> None:
    assert with_start().result(timeout=10) == Total(["book"], 400)
    assert Cart.handle("cart").query(Cart.content).items == ["book"]


def test_with_start_asks_the_instance_that_is_open(worker: Worker) -> None:
    handle = start()
    handle.update(Cart.add, "pen")
    assert with_start().result(timeout=10).items == ["pen", "book"]
    assert WorkflowInstance.objects.count() == 1


def test_with_start_begins_another_one_when_it_has_closed(worker: Worker) -> None:
    handle = start()
    handle.signal(Cart.check_out)
    handle.result(timeout=10)
    assert with_start().result(timeout=10).items == ["book"]
    assert WorkflowInstance.objects.count() == 2


def test_with_start_leaves_nothing_when_it_is_rolled_back_or_refused(consistent_tables: None) -> None:
    with transaction.atomic():
        with_start()
        transaction.set_rollback(True)
    wrong: Any = object()
    with pytest.raises(PayloadError):
        with_start(wrong)
    with pytest.raises(TypeError):
        Cart.using(instance_id="cart").update_with_start(Cart.add.request(), "Ada")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="needs an address"):
        Cart.using().update_with_start(Cart.add.request("book"), "Ada")
    for model in (WorkflowInstance, WorkflowUpdate, InboxEvent, HistoryEvent):
        assert not model._default_manager.exists()


def test_with_start_of_two_at_once_begins_one_instance(worker: Worker) -> None:
    answers = in_threads(*[lambda: with_start().result(timeout=20)] * 4)
    assert sorted(len(answer.items) for answer in answers if isinstance(answer, Total)) == [1, 2, 3, 4], answers
    assert WorkflowInstance.objects.count() == 1


def test_with_start_from_async_code(worker: Worker) -> None:
    async def main() -> Total:
        update = await Cart.using(instance_id="cart").aupdate_with_start(Cart.add.request("book"), "Ada")
        return await update.aresult(timeout=10)

    assert async_to_sync(main)().items == ["book"]


def test_with_start_delays_no_step_and_hears_of_an_instance_that_closed_meanwhile(worker: Worker) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("an open write transaction keeps the worker out altogether")
    handle = start()
    handle.update(Cart.count)

    def close() -> list[str]:
        handle.signal(Cart.check_out)
        return handle.result(timeout=10)

    with transaction.atomic():
        update = with_start()
        assert in_threads(close) == [[]]
    with pytest.raises(UpdateNotAnswered):
        update.result(timeout=10)
    eventually(lambda: update.status is REJECTED)
    assert with_start().result(timeout=10).items == ["book"], "asking again starts another one"

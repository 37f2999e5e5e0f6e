"""Children with ids that their authors chose: taken or free, held by an application, between order and start."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import transaction

from django_workflows import (
    InstanceAlreadyExists,
    InstanceNotFound,
    InstanceStatus,
    Signal,
    WorkflowCancelled,
    WorkflowFailed,
    get_handle,
    workflow,
)
from django_workflows.engine import events as ev
from django_workflows.engine.events import decode_event
from django_workflows.engine.steps import Step
from django_workflows.models import HistoryEvent, InboxEvent, WorkflowInstance
from django_workflows.models import Worker as WorkerRow
from django_workflows.store import children, leftovers
from django_workflows.store.database import Database
from django_workflows.store.work import ChildOrder, InstanceStep, TurnBatch
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect

from .samples import echo, wait_for_go
from .store_support import claim, commit, elsewhere, first_step, register, skip_without_row_locks
from .waiting import eventually, in_threads

pytestmark = pytest.mark.django_db(transaction=True)

word: Signal[str] = Signal("ids.word", str)


@workflow(name="ids.child")
async def child(value: str) -> str:
    return value if value else await word.receive()


@workflow(name="ids.parent")
async def parent(instance_id: str, value: str = "") -> str:
    try:
        return await child.using(instance_id=instance_id)(value)
    except InstanceAlreadyExists as error:
        return f"taken: {error}"


@workflow(name="ids.careless")
async def careless(instance_id: str) -> str:
    return await child.using(instance_id=instance_id)("x")


@workflow(name="ids.several")
async def several(count: int) -> list[str]:
    started = [child.using(instance_id=f"child-{number}")(str(number)) for number in range(count)]
    return await asyncio.gather(*started)


@workflow(name="ids.twice")
async def twice() -> list[str]:
    using = child.using(instance_id="child-1")
    first = await using("first")
    handle = using.start_child("")
    await handle.started()
    try:
        await using("while it is open")
    except InstanceAlreadyExists:
        await handle.signal(word, "second")
    return [first, await handle]


@workflow(name="ids.impatient")
async def impatient(instance_id: str, policy: ev.ParentClose = "cancel") -> str:
    """Give up waiting after a moment; the child may not even have been started then."""
    try:
        async with asyncio.timeout(0.05):
            return await child.using(instance_id=instance_id, parent_close=policy)("")
    except TimeoutError:
        return "gave up"


def the_child(instance_id: str = "child-1") -> WorkflowInstance:
    return WorkflowInstance.objects.get(instance_id=instance_id)


def ordered() -> InboxEvent | None:
    return InboxEvent.objects.filter(type="ChildScheduled").first()


def types(instance_id: str) -> list[str]:
    return [event.type for event in get_handle(instance_id).history()]


# Free and taken


def test_a_chosen_id_is_the_childs_and_its_row_carries_the_options(worker: Worker) -> None:
    effect = Effect.objects.create(key="subject")

    handle = optioned.start(effect.pk)

    assert handle.result(timeout=20) == "x"
    row = the_child()
    assert (row.parent_id, row.root_id) == (handle.describe().pk, handle.describe().pk)
    assert row.attributes == {"colour": "red"}
    assert WorkflowInstance.objects.for_subject(effect).get() == row
    assert types(handle.instance_id) == [
        "InstanceStarted", "ChildScheduled", "ChildStarted", "ChildCompleted", "InstanceCompleted",
    ]  # fmt: skip


@workflow(name="ids.optioned")
async def optioned(pk: int) -> str:
    using = child.using(instance_id="child-1", subject=Effect(pk=pk), attributes={"colour": "red"})
    return await using("x")


def test_an_id_that_is_open_is_an_error_that_the_parent_may_catch(worker: Worker) -> None:
    wait_for_go.using(instance_id="child-1").start()
    assert "'child-1'" in parent.start("child-1", "x").result(timeout=20)
    assert the_child().status == InstanceStatus.RUNNING, "the other one is left alone"


def test_uncaught_it_fails_the_parent(worker: Worker) -> None:
    wait_for_go.using(instance_id="child-1").start()
    with pytest.raises(WorkflowFailed) as caught:
        careless.start("child-1").result(timeout=20)
    assert isinstance(caught.value.__cause__, InstanceAlreadyExists)


def test_an_id_may_be_used_again_when_its_child_has_finished(worker: Worker) -> None:
    assert twice.start().result(timeout=20) == ["first", "second"]
    assert WorkflowInstance.objects.filter(instance_id="child-1").count() == 2


def test_of_parents_that_choose_one_id_at_once_one_gets_it(consistent_tables: None, cache_size: int) -> None:
    handles = parent.start_many([("child-1",)] * 5)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: sum(handle.status == InstanceStatus.COMPLETED for handle in handles) == 4)
        get_handle("child-1").signal(word, "mine")
        results = [handle.result(timeout=20) for handle in handles]
    assert results.count("mine") == 1
    assert WorkflowInstance.objects.filter(instance_id="child-1").count() == 1


def test_two_workers_start_each_child_once(consistent_tables: None, cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size), running_worker(sticky_cache_size=cache_size):
        parents = parent.start_many([(f"child-{number % 20}", "x") for number in range(40)])
        results = [handle.result(timeout=60) for handle in parents]
    started = WorkflowInstance.objects.filter(name="ids.child").count()
    assert results.count("x") == started
    assert HistoryEvent.objects.filter(type="ChildStarted").count() == started


def test_a_hundred_children_with_chosen_ids_run_side_by_side(worker: Worker) -> None:
    assert several.start(100).result(timeout=60) == [str(number) for number in range(100)]


# Held by an application


def test_an_id_that_an_application_holds_delays_that_child_and_nothing_else(worker: Worker) -> None:
    skip_without_row_locks()
    with elsewhere(wait_for_go.using(instance_id="child-1").start, end="rollback"):
        handle = parent.start("child-1", "x")
        eventually(lambda: "ChildScheduled" in types(handle.instance_id))
        began = time.monotonic()
        for number in range(10):
            assert echo.start(number).result(timeout=10) == number
        assert time.monotonic() - began < 5
        assert ordered() is not None
        assert types(handle.instance_id)[-1] == "ChildScheduled"
    assert handle.result(timeout=20) == "x", "the start happens when the application's transaction has ended"


def test_so_do_many_such_ids(worker: Worker) -> None:
    skip_without_row_locks()
    ids = [f"child-{number}" for number in range(50)]
    with elsewhere(lambda: wait_for_go.start_many([()] * 50, instance_ids=ids), end="rollback"):
        handle = several.start(50)
        eventually(lambda: len(types(handle.instance_id)) == 51)
        began = time.monotonic()
        for number in range(10):
            assert echo.start(number).result(timeout=10) == number
        assert time.monotonic() - began < 5
    assert handle.result(timeout=60) == [str(number) for number in range(50)]


def test_an_id_that_an_application_takes_for_good_is_taken(worker: Worker) -> None:
    skip_without_row_locks()
    with elsewhere(wait_for_go.using(instance_id="child-1").start, end="commit"):
        handle = parent.start("child-1", "x")
        eventually(lambda: "ChildScheduled" in types(handle.instance_id))
    assert handle.result(timeout=20).startswith("taken")


def test_an_id_is_taken_until_the_termination_of_its_instance_is_committed(worker: Worker) -> None:
    skip_without_row_locks()
    old = wait_for_go.using(instance_id="child-1").start()
    eventually(old.history)
    with elsewhere(old.terminate, end="commit"):
        assert parent.start("child-1", "x").result(timeout=20).startswith("taken")
    assert parent.start("child-1", "x").result(timeout=20) == "x"


def test_a_worker_that_stops_leaves_the_start_to_the_next(consistent_tables: None) -> None:
    skip_without_row_locks()
    with elsewhere(wait_for_go.using(instance_id="child-1").start, end="rollback"):
        handle = parent.start("child-1", "x")
        began = time.monotonic()
        with running_worker():
            eventually(lambda: "ChildScheduled" in types(handle.instance_id))
        assert time.monotonic() - began < 10, "it does not wait for the id"
        assert ordered() is not None
    with running_worker():
        assert handle.result(timeout=20) == "x"


@pytest.mark.parametrize(("policy", "survives"), [("cancel", False), ("terminate", False), ("abandon", True)])
def test_given_up_while_it_is_starting_it_is_told_as_soon_as_it_is(
    worker: Worker, policy: ev.ParentClose, survives: bool
) -> None:
    skip_without_row_locks()
    with elsewhere(wait_for_go.using(instance_id="child-1").start, end="rollback"):
        handle = impatient.start("child-1", policy)
        eventually(lambda: "TimerFired" in types(handle.instance_id))
    assert handle.result(timeout=20) == "gave up"
    if survives:
        eventually(lambda: WorkflowInstance.objects.filter(instance_id="child-1").exists())
        get_handle("child-1").signal(word, "on its own")
        assert get_handle("child-1").result(timeout=20) == "on its own"
    else:
        # It is started and told, or its parent has closed before and it never is.
        eventually(lambda: ordered() is None)
        eventually(lambda: not WorkflowInstance.objects.open().filter(instance_id="child-1").exists())


@pytest.mark.parametrize("starts", [True, False])
def test_cancelled_while_the_child_is_starting_the_parent_waits_for_it(worker: Worker, starts: bool) -> None:
    skip_without_row_locks()
    with elsewhere(wait_for_go.using(instance_id="child-1").start, end="rollback" if starts else "commit"):
        handle = parent.start("child-1")
        eventually(lambda: "ChildScheduled" in types(handle.instance_id))
        handle.cancel()
        eventually(lambda: "CancelRequested" in types(handle.instance_id))
        assert handle.status == InstanceStatus.RUNNING
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=20)
    if starts:
        assert the_child().status == InstanceStatus.CANCELLED


# Between the order and the start


def scheduled(policy: ev.ParentClose = "cancel", **fields: Any) -> ev.ChildScheduled:
    options = ev.InstanceOptions(parent_close=policy)
    event = {
        "command": 1, "name": "ids.child", "input": ev.Raw(b'[["x"],{}]'), "queue": "default",
        "execution_id": "e" * 32, "instance_id": "child-1", "chosen_id": True, "options": options,
    }  # fmt: skip
    return ev.ChildScheduled(**event | fields)


def order_a_child(event: ev.ChildScheduled) -> ChildOrder:
    """Commit a step of a parent that orders a child, as a worker that then dies does."""
    me = register()
    [loaded] = claim(me, parent.using(instance_id="parent-1").start("child-1"))
    assert commit(me, TurnBatch(steps=[first_step(loaded, event)])).committed
    row = ordered()
    assert row is not None
    assert row.instance_id is not None
    return ChildOrder(row.pk, row.instance_id, event)


def outcomes() -> list[str]:
    return sorted(InboxEvent.objects.filter(type__startswith="Child").values_list("type", flat=True))


def test_an_order_is_carried_out_once_whoever_has_read_it() -> None:
    order = order_a_child(scheduled())

    assert in_threads(*[lambda: children.carry_out(Database(), order)] * 4).count(False) < 4
    while not children.carry_out(Database(), order):
        pass

    assert WorkflowInstance.objects.filter(instance_id="child-1").count() == 1
    assert outcomes() == ["ChildStarted"]


def test_an_order_waits_for_the_next_worker_when_one_dies_before_it_is_carried_out() -> None:
    order_a_child(scheduled())
    WorkerRow.objects.update(state=WorkerRow.State.DEAD)
    with running_worker():
        assert get_handle("parent-1").result(timeout=20) == "x"


def test_an_outcome_waits_for_the_next_worker_when_one_dies_after_it_was_carried_out() -> None:
    order = order_a_child(scheduled())
    assert children.carry_out(Database(), order)
    WorkerRow.objects.update(state=WorkerRow.State.DEAD)
    with running_worker():
        assert get_handle("parent-1").result(timeout=20) == "x"
    assert WorkflowInstance.objects.filter(instance_id="child-1").count() == 1


@pytest.mark.parametrize(("policy", "starts"), [("cancel", False), ("terminate", False), ("abandon", True)])
def test_an_order_of_an_execution_that_continued_as_new_starts_an_abandoned_child_only(
    policy: ev.ParentClose, starts: bool
) -> None:
    me = register()
    [loaded] = claim(me, parent.using(instance_id="parent-1").start("child-1"))
    again = ev.InstanceContinuedAsNew(command=2, input=ev.Raw(b'[["child-2","x"],{}]'), execution_id="f" * 32)
    assert commit(me, TurnBatch(steps=[first_step(loaded, scheduled(policy))])).committed
    loaded.chain.history_length = 2
    step = Step(time=datetime.now(UTC), events=[ev.CancelRequested(), again])
    assert commit(me, TurnBatch(steps=[InstanceStep(loaded.chain, step)])).committed
    with running_worker():
        assert get_handle("parent-1").result(timeout=20) == "x"
        eventually(lambda: ordered() is None)
    assert WorkflowInstance.objects.filter(instance_id="child-1").exists() is starts


@pytest.mark.parametrize(("policy", "starts"), [("cancel", False), ("terminate", False), ("abandon", True)])
def test_an_order_of_a_terminated_parent_starts_an_abandoned_child_only(policy: ev.ParentClose, starts: bool) -> None:
    order_a_child(scheduled(policy))
    get_handle("parent-1").terminate()
    with running_worker():
        eventually(lambda: ordered() is None)
        if starts:
            assert get_handle("child-1").result(timeout=20) == "x"
    assert WorkflowInstance.objects.filter(instance_id="child-1").exists() is starts


def test_a_parked_order_of_a_terminated_parent_is_found_too() -> None:
    order_a_child(scheduled("abandon"))
    InboxEvent.objects.filter(type="ChildScheduled").update(queue=None)  # as that of a blocked instance
    get_handle("parent-1").terminate()
    assert leftovers.sweep(Database()) == 1
    with running_worker():
        assert get_handle("child-1").result(timeout=20) == "x"


def test_a_parent_that_is_being_terminated_is_waited_for_so_that_its_child_hears_of_it() -> None:
    skip_without_row_locks()
    order = order_a_child(scheduled())
    with elsewhere(get_handle("parent-1").terminate, end="commit"):
        assert not children.carry_out(Database(), order)
    assert children.carry_out(Database(), order)
    assert not WorkflowInstance.objects.filter(instance_id="child-1").exists()
    assert outcomes() == []


def test_an_order_of_a_removed_parent_starts_nothing() -> None:
    order = order_a_child(scheduled("abandon"))
    get_handle("parent-1").terminate()
    get_handle("parent-1").remove()
    assert children.carry_out(Database(), order)
    with pytest.raises(InstanceNotFound):
        get_handle("child-1").describe()


@pytest.mark.parametrize("fields", [{"version": "v" * 101}, {"subject": ("nothing.here", "1")}])
def test_a_child_that_the_database_refuses_fails_alone(fields: dict[str, Any]) -> None:
    if "version" in fields:
        skip_without_row_locks()  # SQLite does not look at lengths
    order = order_a_child(scheduled(**fields))
    assert children.carry_out(Database(), order)
    [row] = InboxEvent.objects.filter(type="ChildFailed")
    assert isinstance(decode_event(row.type, row.data), ev.ChildFailed)
    assert not WorkflowInstance.objects.filter(instance_id="child-1").exists()
    assert not HistoryEvent.objects.filter(type="ChildStarted").exists()


def test_an_order_that_cannot_be_read_is_deleted_with_its_closed_parent() -> None:
    order_a_child(scheduled("abandon"))
    InboxEvent.objects.filter(type="ChildScheduled").update(data="{")
    get_handle("parent-1").terminate()
    with running_worker():
        eventually(lambda: not InboxEvent.objects.exists())


def test_a_start_in_the_transaction_of_its_parents_start_is_seen_after_the_commit(worker: Worker) -> None:
    with transaction.atomic():
        handle = parent.start("child-1", "x")
        assert not WorkflowInstance.objects.filter(instance_id="child-1").exists()
    assert handle.result(timeout=20) == "x"

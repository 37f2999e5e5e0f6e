"""Messages that workflows send to other instances, to their children, and to themselves."""

from __future__ import annotations

import asyncio

import pytest
from django.db import transaction

from django_workflows import (
    InstanceNotFound,
    InstanceNotRunning,
    InstanceStatus,
    Signal,
    WorkflowCancelled,
    WorkflowFailed,
    get_handle,
    workflow,
)
from django_workflows.engine import events as ev
from django_workflows.models import InboxEvent, WorkflowInstance
from django_workflows.store.work import TurnBatch
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .samples import echo
from .store_support import claim, commit, completed, first_step, register, start
from .waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

number: Signal[int] = Signal("messages.number", int)


@workflow(name="messages.collect")
async def collect(count: int) -> list[int]:
    return [await number.receive() for _ in range(count)]


@workflow(name="messages.send")
async def send(instance_id: str, values: list[int], execution_id: str | None = None) -> str:
    try:
        for value in values:
            await workflow.handle(instance_id, execution_id).signal(number, value)
    except (InstanceNotFound, InstanceNotRunning) as error:
        return type(error).__name__
    return "sent"


@workflow(name="messages.send_at_once")
async def send_at_once(instance_id: str, count: int) -> None:
    other = workflow.handle(instance_id)
    await asyncio.gather(*(other.signal(number, value) for value in range(count)))


@workflow(name="messages.cancel")
async def cancel(instance_id: str) -> str:
    try:
        await workflow.handle(instance_id).cancel("told by another")
    except (InstanceNotFound, InstanceNotRunning) as error:
        return type(error).__name__
    return "asked"


@workflow(name="messages.with_child")
async def with_child(chosen: bool, count: int) -> list[int]:
    """Start a child and send it signals before anything else can have happened."""
    child = collect.using(instance_id="the-child" if chosen else None).start_child(count)
    for value in range(count):
        await child.signal(number, value)
    return await child


@workflow(name="messages.to_itself")
async def to_itself() -> list[int]:
    me = workflow.handle(workflow.info().instance_id)
    await me.signal(number, 1)
    await asyncio.gather(me.signal(number, 2), me.signal(number, 3))
    return [await number.receive() for _ in range(3)]


@workflow(name="messages.cancels_itself")
async def cancels_itself() -> None:
    await workflow.handle(workflow.info().instance_id).cancel()
    await number.receive()


# Signals


def test_a_signal_reaches_another_instance(worker: Worker) -> None:
    other = collect.using(instance_id="other").start(2)
    assert send.start("other", [4, 5]).result(timeout=20) == "sent"
    assert other.result(timeout=20) == [4, 5]


def test_it_reaches_an_instance_that_has_not_begun(consistent_tables: None, cache_size: int) -> None:
    other = collect.using(instance_id="other", queue="elsewhere").start(1)
    with running_worker(sticky_cache_size=cache_size):
        assert send.start("other", [4]).result(timeout=20) == "sent"
    assert InboxEvent.objects.get(type="SignalReceived").queue == "elsewhere"
    with running_worker(queues=["elsewhere"]):
        assert other.result(timeout=20) == [4]


def test_signals_that_are_sent_at_once_arrive_in_the_order_of_the_code(worker: Worker) -> None:
    other = collect.using(instance_id="other").start(30)
    send_at_once.start("other", 30).result(timeout=20)
    assert other.result(timeout=20) == list(range(30))


def test_the_sender_hears_that_nobody_has_the_id(worker: Worker) -> None:
    assert send.start("nobody", [1]).result(timeout=20) == "InstanceNotFound"
    assert cancel.start("nobody").result(timeout=20) == "InstanceNotFound"


def test_the_sender_hears_that_the_instance_has_closed(worker: Worker) -> None:
    echo.using(instance_id="closed").start(1).result(timeout=20)
    assert send.start("closed", [1]).result(timeout=20) == "InstanceNotRunning"
    assert cancel.start("closed").result(timeout=20) == "InstanceNotRunning"


def test_uncaught_that_fails_the_sender(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed) as caught:
        send_at_once.start("nobody", 1).result(timeout=20)
    assert isinstance(caught.value.__cause__, InstanceNotFound)


def test_one_bound_to_an_execution_reaches_no_other(worker: Worker) -> None:
    old = collect.using(instance_id="other").start(1)
    first = old.describe().execution_id
    assert send.start("other", [1], first).result(timeout=20) == "sent"
    assert old.result(timeout=20) == [1]
    new = collect.using(instance_id="other").start(1)
    assert send.start("other", [2], first).result(timeout=20) == "InstanceNotRunning"
    assert send.start("other", [2], "0" * 32).result(timeout=20) == "InstanceNotFound"
    assert send.start("other", [3], new.describe().execution_id).result(timeout=20) == "sent"
    assert new.result(timeout=20) == [3]


def test_a_cancel_request_is_seen_with_its_reason(worker: Worker) -> None:
    other = collect.using(instance_id="other").start(1)
    eventually(other.history)
    assert cancel.start("other").result(timeout=20) == "asked"
    with pytest.raises(WorkflowCancelled):
        other.result(timeout=20)
    [request] = [event for event in other.history() if event.type == "CancelRequested"]
    assert request.data == {"reason": "told by another"}


def test_an_instance_may_write_to_itself(worker: Worker) -> None:
    assert to_itself.start().result(timeout=20) == [1, 2, 3]
    with pytest.raises(WorkflowCancelled):
        cancels_itself.start().result(timeout=20)


def test_two_instances_may_write_to_each_other(worker: Worker) -> None:
    with transaction.atomic():  # whoever serves finds the other
        handles = [rally.using(instance_id=f"player-{me}").start(f"player-{1 - me}", me == 0, 10) for me in (0, 1)]
    assert [handle.result(timeout=20) for handle in handles] == [19, 18]


@workflow(name="messages.rally")
async def rally(other: str, serves: bool, rounds: int) -> int:
    value = 0
    if serves:
        await workflow.handle(other).signal(number, 0)
    for turn in range(rounds):
        value = await number.receive()
        if turn < rounds - 1 or not serves:
            await workflow.handle(other).signal(number, value + 1)
    return value


def test_a_signal_to_an_instance_that_continues_as_new_reaches_it(worker: Worker) -> None:
    other = one_each.using(instance_id="other").start(10, [])
    assert send.start("other", list(range(10))).result(timeout=20) == "sent"
    assert other.result(timeout=20) == list(range(10))


@workflow(name="messages.one_each")
async def one_each(total: int, received: list[int]) -> list[int]:
    received.append(await number.receive())
    if len(received) < total:
        workflow.continue_as_new(total, received)
    return received


# Children


@pytest.mark.parametrize("chosen", [False, True], ids=["own id", "chosen id"])
def test_signals_sent_right_after_a_child_was_started_reach_it(worker: Worker, chosen: bool) -> None:
    assert with_child.start(chosen, 5).result(timeout=20) == [0, 1, 2, 3, 4]


def test_a_signal_to_a_child_reaches_the_execution_that_it_continued_as(worker: Worker) -> None:
    assert of_restless_child.start(6).result(timeout=20) == [0, 1, 2, 3, 4, 5]


@workflow(name="messages.of_restless_child")
async def of_restless_child(count: int) -> list[int]:
    child = one_each.using(instance_id="restless").start_child(count, [])
    for value in range(count):
        await child.signal(number, value)
    return await child


def test_a_signal_reaches_a_child_whose_first_execution_was_removed(worker: Worker) -> None:
    handle = of_pruned_child.start()
    first = eventually(lambda: WorkflowInstance.objects.filter(instance_id="pruned", status="continued_as_new").first())
    get_handle("pruned", first.execution_id).remove()
    handle.signal(number, 0)
    assert handle.result(timeout=20) == [0, 7]


@workflow(name="messages.of_pruned_child")
async def of_pruned_child() -> list[int]:
    child = one_each.using(instance_id="pruned").start_child(2, [])
    await child.signal(number, 0)
    await number.receive()
    await child.signal(number, 7)
    return await child


def test_a_signal_to_a_child_never_reaches_a_stranger_with_its_id(worker: Worker) -> None:
    handle = late.start()
    eventually(lambda: WorkflowInstance.objects.filter(instance_id="the-child").exists())
    get_handle("the-child").signal(number, 0)
    assert get_handle("the-child").result(timeout=20) == [0]
    stranger = collect.using(instance_id="the-child").start(1)
    handle.signal(number, 0)
    assert handle.result(timeout=20) == "InstanceNotRunning"
    assert stranger.status is InstanceStatus.RUNNING
    stranger.terminate()


@workflow(name="messages.late")
async def late() -> str:
    child = collect.using(instance_id="the-child").start_child(1)
    await child
    await number.receive()
    try:
        await child.signal(number, 1)
    except InstanceNotRunning as error:
        return type(error).__name__
    return "sent"


def test_a_handle_cancels_its_child(worker: Worker) -> None:
    assert changes_its_mind.start().result(timeout=20) == "cancelled"
    assert WorkflowInstance.objects.get(name="messages.collect").status == InstanceStatus.CANCELLED


@workflow(name="messages.changes_its_mind")
async def changes_its_mind() -> str:
    child = collect.using(parent_close="abandon").start_child(1)
    await asyncio.sleep(0.05)
    child.cancel()
    try:
        await child
    except asyncio.CancelledError:
        return "cancelled"
    return "went on"


# One turn


def sent(instance_id: str, command: int = 1) -> ev.SignalSent:
    return ev.SignalSent(command=command, instance_id=instance_id, name="messages.number", value=ev.Raw(b"1"))


def outcomes(instance: int) -> list[str]:
    rows = InboxEvent.objects.filter(instance_id=instance, type__startswith="Message").order_by("id")
    return list(rows.values_list("type", flat=True))


def test_one_that_closes_in_the_same_turn_gets_nothing_and_the_sender_hears_of_it() -> None:
    me = register()
    sender, closing = start(2)
    first, second = claim(me, sender, closing)
    steps = [first_step(first, sent(closing.instance_id)), first_step(second, completed(1))]
    assert len(commit(me, TurnBatch(steps=steps)).committed) == 2
    assert outcomes(first.chain.instance) == ["MessageRefused"]
    assert not InboxEvent.objects.filter(chain_id=second.chain.chain).exists()


def test_a_sender_that_closes_in_the_same_turn_has_sent_and_hears_nothing() -> None:
    me = register()
    sender, other = start(2)
    first, second = claim(me, sender, other)
    assert commit(me, TurnBatch(steps=[first_step(first, sent(other.instance_id), completed(2))])).committed
    assert outcomes(first.chain.instance) == []
    assert InboxEvent.objects.filter(chain_id=second.chain.chain, type="SignalReceived").count() == 1


def test_senders_of_one_turn_find_their_addressees_each() -> None:
    me = register()
    handles = start(4)
    loaded = claim(me, *handles)
    ring = [first_step(one, sent(handles[(place + 1) % 4].instance_id)) for place, one in enumerate(loaded)]
    commit(me, TurnBatch(steps=ring))
    for one in loaded:
        assert outcomes(one.chain.instance) == ["MessageDelivered"]
        assert InboxEvent.objects.filter(chain_id=one.chain.chain, type="SignalReceived").count() == 1

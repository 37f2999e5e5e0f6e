"""Identity: what an id that is used again, a removed execution or the order of rows may not change."""

from __future__ import annotations

import asyncio

import pytest
from django.utils import timezone

from django_workflows import InstanceAlreadyExists, workflow
from django_workflows.models import ActivityTask, HistoryEvent, InboxEvent, Timer, WorkflowInstance
from django_workflows.testing import running_worker
from tests.conformance.removal_support import continued_then_waiting, rows_left, wake
from tests.conformance.waiting import eventually

from .support import child, collect, number, numbers, word


def test_an_id_that_is_used_again_begins_with_nothing_of_its_past(cache_size: int) -> None:
    """DBOS #769: a checkpoint that the garbage collection had left was replayed by a later workflow of the same id."""
    first = collect.using(instance_id="again").start(1)
    with running_worker(sticky_cache_size=cache_size):
        first.signal(word, "old")
        assert first.result(timeout=60) == ["old"]
    old = first.describe().pk
    history = list(HistoryEvent.objects.filter(instance_id=old))
    first.remove()
    assert rows_left() == {}
    # What somebody's own clean-up, or a backup that was put back in part, may have left.
    HistoryEvent.objects.bulk_create(history)
    Timer.objects.create(instance_id=old, command=1, chain_id=old, fire_at=timezone.now(), wake_at=timezone.now())
    data = '{"name":"others.word","value":"of the past"}'
    InboxEvent.objects.create(chain_id=old, type="SignalReceived", data=data, queue="default")

    second = collect.using(instance_id="again").start(1)
    assert second.describe().pk > old, "no key is given twice"
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: not Timer.objects.exists() and second.history(), timeout=60)
        second.signal(word, "new")
        assert second.result(timeout=60) == ["new"]
    HistoryEvent.objects.filter(instance_id=old).delete()


def test_removing_earlier_executions_leaves_the_id_with_the_one_that_runs(cache_size: int) -> None:
    """go-workflows, Redis: RemoveContinuedAsNew deleted the pointer of the new execution: no signals, duplicates."""
    handle = continued_then_waiting.using(instance_id="moved on").start(2)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: WorkflowInstance.objects.count() == 3 and not InboxEvent.objects.exists())
        for row in WorkflowInstance.objects.filter(status="continued_as_new"):
            continued_then_waiting.handle("moved on", row.execution_id).remove()
        with pytest.raises(InstanceAlreadyExists):
            continued_then_waiting.using(instance_id="moved on").start(0)
        handle.signal(wake, "still here")
        assert handle.result(timeout=60) == "still here"


@workflow(name="others.before_and_after")
async def before_and_after() -> int:
    before = await child(1)
    await workflow.sleep(0.01)
    return before + await child(2)


def test_roots_and_children_are_listed_in_the_order_of_their_starts(cache_size: int) -> None:
    """go-workflows, Redis: roots were dated in nanoseconds and children in seconds, so lists and pages were wrong."""
    with running_worker(sticky_cache_size=cache_size):
        assert before_and_after.start().result(timeout=60) == 3
        assert numbers.start(3).result(timeout=60) == 3
        assert before_and_after.start().result(timeout=60) == 3
    names = list(WorkflowInstance.objects.order_by("created_at").values_list("name", flat=True))
    family = ["others.before_and_after", "others.child", "others.child"]
    assert names == [*family, "others.numbers", *family]


@workflow(name="others.many_events")
async def many_events() -> int:
    total = 0
    for value in range(3):
        total += await number(value)
        await word.receive()
    return total + sum(await asyncio.gather(number(10), number(20)))


def test_histories_and_messages_are_read_in_their_order_however_the_rows_lie() -> None:
    """go-workflows, SQLite: pending events and history were read without ORDER BY."""
    handle, listener = many_events.start(), collect.start(3)
    with running_worker(sticky_cache_size=0):
        for _ in range(2):
            handle.signal(word, "go")
        eventually(lambda: [event.type for event in handle.history()].count("ActivityCompleted") == 3)
    events = list(HistoryEvent.objects.order_by("-sequence"))
    HistoryEvent.objects.all().delete()
    for event in events:
        event.save(force_insert=True)
    for value in "abc":
        listener.signal(word, value)
    messages = list(InboxEvent.objects.order_by("-id"))
    InboxEvent.objects.all().delete()
    for message in messages:
        message.save(force_insert=True)
    handle.signal(word, "go")
    with running_worker(sticky_cache_size=0):
        assert handle.result(timeout=60) == 33
        assert listener.result(timeout=60) == ["a", "b", "c"]
    assert not ActivityTask.objects.exists()

"""Rows that cannot be read and code that does what it must not: one instance is affected, the others go on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from django_workflows import InstanceStatus, RetryPolicy, WorkflowFailed, activity, workflow
from django_workflows import WorkflowHandle as Handle
from django_workflows.models import ActivityTask, HistoryEvent, InboxEvent, OpenInstance, Timer, WorkflowInstance
from django_workflows.testing import running_worker
from tests.testapp.workflows import greet

from .waiting import collect_leftovers, eventually
from .workflows import collect, word


@activity(name="poison.number", retry=RetryPolicy(max_attempts=1))
def number(value: int) -> int:
    return value


@workflow(name="poison.numbers")
async def numbers(value: int) -> int:
    return await number(value)


def poison(handle: Handle[Any], type: str, data: str) -> InboxEvent:
    row = handle.describe()
    return InboxEvent.objects.create(chain_id=row.chain, type=type, data=data, queue=row.queue)


@pytest.mark.parametrize(
    "type, data, reason",
    [
        pytest.param("SignalReceived", '{"name": "word", "va', "SignalReceived", id="broken JSON"),
        pytest.param("SignalReceived", '{"name": 7}', "SignalReceived", id="wrong shape"),
        pytest.param("FromTheFuture", "{}", "FromTheFuture", id="unknown type"),
        pytest.param("ActivityScheduled", '{"command": 1}', "", id="no input event"),
    ],
)
def test_inbox_row_that_cannot_be_read_blocks_its_instance_alone(
    type: str, data: str, reason: str, cache_size: int
) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handle, other = collect.start(2), collect.start(2)
        handle.signal(word, "before")
        eventually(lambda: len(handle.history()) == 2)
        row = poison(handle, type, data)
        handle.signal(word, "after")

        eventually(lambda: handle.status is InstanceStatus.BLOCKED)
        assert reason in (handle.describe().failure or "")
        other.signal(word, "one")
        other.signal(word, "two")
        assert other.result(timeout=10) == ["one", "two"]

        row.delete()
        assert handle.result(timeout=15) == ["before", "after"]


@pytest.mark.parametrize("type", ["SignalReceived", "SignalWithStart"])
@pytest.mark.parametrize("parked", [False, True], ids=["waiting", "parked"])
def test_signal_that_cannot_be_read_is_kept_by_an_instance_that_has_closed(type: str, parked: bool) -> None:
    handle, data = collect.start(1), '{"name": "word", "va'
    row = poison(handle, type, data)
    if parked:
        InboxEvent.objects.filter(pk=row.pk).update(queue=None)
    handle.terminate()
    for _ in range(2):
        collect_leftovers()
        kept = InboxEvent.objects.filter(pk=row.pk).values_list("type", "data", "queue")
        assert list(kept) == [("SignalReceived", data, None)]
    handle.remove()
    assert not InboxEvent.objects.exists()


def test_input_that_does_not_decode_blocks_its_instance_alone(cache_size: int) -> None:
    good, truncated, wrong = collect.start(1), collect.start(1), collect.start(1)
    WorkflowInstance.objects.filter(pk=truncated.describe().pk).update(input="[[1")
    WorkflowInstance.objects.filter(pk=wrong.describe().pk).update(input='[["one"],{}]')
    for handle in (good, truncated, wrong):
        handle.signal(word, "x")
    with running_worker(sticky_cache_size=cache_size):
        for handle in (truncated, wrong):
            eventually(lambda handle=handle: handle.status is InstanceStatus.BLOCKED)  # type: ignore[misc]
            assert "arguments of processes.collect" in (handle.describe().failure or "") or "count" in (
                handle.describe().failure or ""
            )
        assert good.result(timeout=10) == ["x"]

        WorkflowInstance.objects.update(input="[[1],{}]")
        assert truncated.result(timeout=15) == wrong.result(timeout=15) == ["x"]


@pytest.mark.parametrize("data", ['{"comm', "[]"])
def test_history_that_cannot_be_read_blocks_its_instance_alone(data: str) -> None:
    with running_worker(sticky_cache_size=0):
        handle, other = collect.start(2), collect.start(1)
        handle.signal(word, "before")
        eventually(lambda: len(handle.history()) == 2)
    event = HistoryEvent.objects.filter(instance_id=handle.describe().pk).order_by("-sequence")[0]
    HistoryEvent.objects.filter(pk=event.pk).update(data=data)
    handle.signal(word, "after")
    with running_worker(sticky_cache_size=0):
        eventually(lambda: handle.status is InstanceStatus.BLOCKED)
        other.signal(word, "x")
        assert other.result(timeout=10) == ["x"]
        HistoryEvent.objects.filter(pk=event.pk).update(data=event.data)
        assert handle.result(timeout=15) == ["before", "after"]


def orphan_task(instance_id: int, name: str, **changes: Any) -> None:
    ActivityTask.objects.create(
        instance_id=instance_id, command=1, chain_id=instance_id, name=name, queue="default", workflow_queue="default",
        available_at=timezone.now(), scheduled_at=timezone.now(),
        **{"options": json.dumps({"retry": RetryPolicy().to_json()}), "input": "[[1],{}]", **changes},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["poison.number", "poison.never_heard_of"])
def test_activity_task_of_a_removed_instance_goes_away_and_others_go_on(name: str, cache_size: int) -> None:
    orphan_task(10**9, name)
    with running_worker(sticky_cache_size=cache_size):
        assert numbers.start(7).result(timeout=10) == 7
        eventually(lambda: not ActivityTask.objects.exists() and not InboxEvent.objects.exists())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"options": "{"}, id="options"),
        pytest.param({"options": "[]"}, id="shape of options"),
        pytest.param({"options": '{"retry": {"max_attempts": 1}}'}, id="retry policy"),
        pytest.param({"input": "[["}, id="input"),
        pytest.param({"input": '[["seven"],{}]'}, id="type of input"),
    ],
)
def test_activity_task_that_cannot_be_read_fails_alone(changes: dict[str, str], cache_size: int) -> None:
    with running_worker(activities=False, sticky_cache_size=cache_size):
        handle = numbers.start(1)
        task = eventually(ActivityTask.objects.first)
        ActivityTask.objects.filter(pk=task.pk).update(**changes)
    with running_worker(sticky_cache_size=cache_size):
        assert numbers.start(7).result(timeout=10) == 7
        with pytest.raises(WorkflowFailed):
            handle.result(timeout=15)
        assert numbers.start(8).result(timeout=10) == 8


def test_timer_of_a_removed_instance_goes_away_and_others_go_on(cache_size: int) -> None:
    Timer.objects.create(instance_id=10**9, command=1, chain_id=10**9, fire_at=timezone.now(), wake_at=timezone.now())
    with running_worker(sticky_cache_size=cache_size):
        assert numbers.start(7).result(timeout=10) == 7
        eventually(lambda: not Timer.objects.exists())


def test_instance_that_is_not_blocked_yet_may_have_the_timer_of_its_next_try(cache_size: int) -> None:
    handle, other = collect.start(1), greet.start("hello")
    poison(handle, "FromTheFuture", "{}")
    row, now = handle.describe(), timezone.now()
    Timer.objects.create(instance_id=row.pk, command=0, chain_id=row.chain, fire_at=now, wake_at=now)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: handle.status is InstanceStatus.BLOCKED)
        assert other.result(timeout=10) == "hello world"
    handle.terminate()


def test_instance_whose_last_claims_never_came_back_is_set_aside(cache_size: int) -> None:
    handle, other = collect.start(1), collect.start(1)
    OpenInstance.objects.filter(pk=handle.describe().instance_key).update(crashes=5)
    OpenInstance.objects.filter(pk=other.describe().instance_key).update(crashes=4)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: handle.status is InstanceStatus.BLOCKED)
        assert "CRASH_LIMIT is 5" in (handle.describe().failure or "")
        other.signal(word, "x")
        assert other.result(timeout=10) == ["x"]


def exit_of(name: str) -> BaseException:
    return {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[name](3)


@activity(name="poison.exit", retry=RetryPolicy(max_attempts=1))
def exit_from_activity(name: str) -> None:
    raise exit_of(name)


@activity(name="poison.exit_async", retry=RetryPolicy(max_attempts=1))
async def exit_from_async_activity(name: str) -> None:
    raise exit_of(name)


@workflow(name="poison.exits")
async def exits(name: str, where: str) -> None:
    match where:
        case "activity":
            await exit_from_activity(name)
        case "async activity":
            await exit_from_async_activity(name)
        case _:
            raise exit_of(name)


@pytest.mark.parametrize("where", ["workflow", "activity", "async activity"])
@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt"])
def test_exit_raised_by_project_code_harms_its_instance_alone(name: str, where: str, cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handle = exits.start(name, where)
        eventually(lambda: handle.status in (InstanceStatus.BLOCKED, InstanceStatus.FAILED))
        assert name in (handle.describe().failure or "")
        assert numbers.start(7).result(timeout=10) == 7


def test_instance_that_blocks_in_every_step_does_not_slow_the_others(cache_size: int) -> None:
    handles = collect.start_many([(1,)] * 20)
    WorkflowInstance.objects.update(input="[[")
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: WorkflowInstance.objects.filter(status="blocked").count() == 20)
        assert [handle.result(timeout=10) for handle in greet.start_many([("x",)] * 20)] == ["x world"] * 20
        assert {handle.status for handle in handles} == {InstanceStatus.BLOCKED}


def test_instance_that_was_blocked_for_weeks_is_tried_again_and_goes_on(cache_size: int) -> None:
    handle, now = collect.start(0), timezone.now()
    row = handle.describe()
    WorkflowInstance.objects.update(input="[[")
    OpenInstance.objects.update(blocks=32767)  # as many as the column holds, one a minute
    Timer.objects.create(instance_id=row.pk, command=0, chain_id=row.chain, fire_at=now, wake_at=now)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: Timer.objects.filter(wake_at__gt=now).exists())
        assert numbers.start(7).result(timeout=10) == 7
    WorkflowInstance.objects.filter(pk=row.pk).update(input=row.input)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == []

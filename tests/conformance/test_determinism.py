"""Replay: the same values again, a clear stop where the code has changed, and refusal of what cannot be repeated."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.test import override_settings

from django_workflows import InstanceStatus, Signal, WorkflowFailed, WorkflowHandle, activity, registry, workflow
from django_workflows.failures import Failure
from django_workflows.models import ActivityTask, HistoryEvent, InboxEvent, Timer
from django_workflows.registry import WorkflowDefinition
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect
from tests.testapp.workflows import greet

from .gates import note, notes
from .waiting import eventually

go_on: Signal[None] = Signal("determinism.go_on")


def types(handle: WorkflowHandle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


def has_taken(handle: WorkflowHandle[Any], kind: str, count: int) -> bool:
    return types(handle).count(kind) == count


# Values


def _values() -> list[str]:
    made = workflow.side_effect(lambda: random.random())
    return [
        workflow.now().isoformat(),
        repr(workflow.time()),
        repr(workflow.random().random()),
        str(workflow.random().randint(0, 10**9)),
        str(workflow.uuid4()),
        repr(made),
        workflow.version(),
        workflow.info().execution_id,
        str(workflow.info().history_length),
    ]


@workflow(name="determinism.take_values", version="7")
async def take_values() -> list[str]:
    """Take values in each step and note them: cold, each step notes those of all steps before it again."""
    taken: list[str] = []
    for step in range(4):
        values = _values()
        note(f"{workflow.info().instance_id} {step}", repr(values))
        taken += values
        await go_on.receive()
    return taken


def test_values_are_the_same_on_replay(worker: Worker, cache_size: int) -> None:
    handle = take_values.start()
    for step in range(4):
        eventually(partial(has_taken, handle, "SideEffectRecorded", step + 1))
        handle.signal(go_on)
    result = handle.result(timeout=10)
    replays = [notes(f"{handle.instance_id} {step}") for step in range(4)]
    assert all(len(set(noted)) == 1 for noted in replays), "a replay saw other values"
    assert len(replays[0]) == (5 if cache_size == 0 else 1)
    assert len(set(result)) > 4 * 5  # and they are not all the same value
    assert result[6] == "7"


@workflow(name="determinism.log")
async def log_once() -> None:
    for step in range(3):
        workflow.logger.warning("step %s", step)
        if not workflow.is_replaying():
            note(workflow.info().instance_id, "live")
        await go_on.receive()


def test_the_logger_is_silent_on_replay(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    handle = log_once.start()
    eventually(partial(has_taken, handle, "InstanceStarted", 1))
    for step in range(3):
        handle.signal(go_on)
        eventually(partial(has_taken, handle, "SignalReceived", step + 1))
    handle.result(timeout=10)
    messages = [record for record in caplog.records if record.name == "django_workflows.workflow"]
    assert [record.getMessage() for record in messages] == ["step 0", "step 1", "step 2"]
    assert {record.instance_id for record in messages} == {handle.instance_id}  # type: ignore[attr-defined]
    assert notes(handle.instance_id) == ["live"] * 3


# Changed code


@activity(name="determinism.first")
def first() -> str:
    return "first"


@activity(name="determinism.second")
def second() -> str:
    return "second"


@workflow(name="determinism.child")
async def child() -> str:
    return "child"


@workflow(name="determinism.other_child")
async def other_child() -> str:
    return "other child"


@workflow(name="determinism.changing")
async def changing() -> str:
    raise NotImplementedError("replaced in each test")


Code = Callable[[], Coroutine[Any, Any, str]]


@contextmanager
def deployed(function: Code) -> Iterator[None]:
    """Let `determinism.changing` have other code for the length of the block."""
    definition = registry.workflows.get("determinism.changing")
    assert definition is not None
    registry.workflows._definitions["determinism.changing"] = WorkflowDefinition(
        function, "determinism.changing", None, ""
    )
    try:
        yield
    finally:
        registry.workflows._definitions["determinism.changing"] = definition


async def one() -> str:
    found = await first()
    await go_on.receive()
    return found


async def swapped() -> str:
    found = await second()
    await go_on.receive()
    return found


async def added_before() -> str:
    await asyncio.sleep(0.01)
    return await one()


async def added_after() -> str:
    found = await first()
    await second()
    await go_on.receive()
    return found


async def removed() -> str:
    await go_on.receive()
    return "first"


async def to_timer() -> str:
    await asyncio.sleep(0.01)
    await go_on.receive()
    return "first"


async def timer() -> str:
    await asyncio.sleep(0.01)
    await go_on.receive()
    return "slept"


async def from_timer() -> str:
    return await one()


async def two() -> str:
    found = await asyncio.gather(first(), second())
    await go_on.receive()
    return str(found)


async def reordered() -> str:
    found = await asyncio.gather(second(), first())
    await go_on.receive()
    return str(found)


async def with_child() -> str:
    found = await child()
    await go_on.receive()
    return found


async def with_other_child() -> str:
    found = await other_child()
    await go_on.receive()
    return found


async def with_side_effect() -> str:
    value: int = workflow.side_effect(lambda: 1)
    await go_on.receive()
    return str(value)


async def without_side_effect() -> str:
    await go_on.receive()
    return "1"


# Old code, new code, the number of the event, what was expected, what was found.
CHANGES: dict[str, tuple[Code, Code, int, str, str]] = {
    "activity swapped": (one, swapped, 2, "ActivityScheduled 'determinism.first'", "'determinism.second'"),
    "activity added before": (one, added_before, 2, "ActivityScheduled 'determinism.first'", "TimerStarted"),
    "activity added after": (one, added_after, 4, "no further decision", "ActivityScheduled 'determinism.second'"),
    "activity removed": (one, removed, 2, "ActivityScheduled 'determinism.first'", "decided nothing"),
    "activity to timer": (one, to_timer, 2, "ActivityScheduled 'determinism.first'", "TimerStarted"),
    "timer to activity": (timer, from_timer, 2, "TimerStarted", "ActivityScheduled 'determinism.first'"),
    "order changed": (two, reordered, 2, "ActivityScheduled 'determinism.first'", "'determinism.second'"),
    "child renamed": (with_child, with_other_child, 2, "ChildScheduled 'determinism.child'", "determinism.other_child"),
    "side effect removed": (with_side_effect, without_side_effect, 2, "SideEffectRecorded", "decided nothing"),
}


def _rows(handle: WorkflowHandle[Any]) -> list[Any]:
    """Return everything stored for the instance that a wrong replay could change."""
    pk = handle.describe().pk
    return [
        list(HistoryEvent.objects.filter(instance_id=pk).order_by("sequence").values_list("type", "data", "time")),
        list(ActivityTask.objects.values_list("instance_id", "command", "attempt")),
        list(Timer.objects.filter(command__gt=0).values_list("instance_id", "command", "fire_at")),
        list(InboxEvent.objects.values_list("id", "type")),
    ]


def _is_waiting(handle: WorkflowHandle[Any]) -> bool:
    """Tell whether the old code waits for the signal: its decisions have their outcomes."""
    found = types(handle)
    ends = sum(kind in ("ActivityCompleted", "TimerFired", "ChildCompleted") for kind in found)
    starts = sum(kind in ("ActivityScheduled", "TimerStarted", "ChildScheduled") for kind in found)
    return "InstanceStarted" in found and starts == ends and len(found) > 1


@pytest.mark.parametrize("change", CHANGES)
def test_changed_code_blocks_and_the_old_code_goes_on(consistent_tables: None, cache_size: int, change: str) -> None:
    old, new, number, expected, actual = CHANGES[change]
    with deployed(old), running_worker(sticky_cache_size=cache_size):
        handle = changing.start()
        eventually(lambda: _is_waiting(handle))
    handle.signal(go_on)
    before = _rows(handle)
    with deployed(new), running_worker(sticky_cache_size=cache_size):
        eventually(lambda: handle.status == InstanceStatus.BLOCKED)
        message = Failure.decode(handle.describe().failure or "").message
        assert _rows(handle) == before
        assert greet.start("hello").result(timeout=10) == "hello world"  # nobody else is concerned
    assert f"event {number} of determinism.changing" in message
    assert expected in message and actual in message
    assert f"{__file__}:" in message
    assert "Put the old code back" in message
    with deployed(old), running_worker(sticky_cache_size=cache_size):
        assert isinstance(handle.result(timeout=10), str)
    assert handle.status == InstanceStatus.COMPLETED
    assert handle.describe().failure is None


def test_changed_code_behind_the_recorded_past_is_no_mismatch(consistent_tables: None, cache_size: int) -> None:
    async def longer() -> str:
        found = await one()
        return found + await second()

    with deployed(one), running_worker(sticky_cache_size=cache_size):
        handle = changing.start()
        eventually(lambda: _is_waiting(handle))
    handle.signal(go_on)
    with deployed(longer), running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "firstsecond"


# What workflow code must not do


@workflow(name="determinism.misbehave")
async def misbehave(how: str) -> None:
    match how:
        case "sync ORM":
            Effect.objects.count()
        case "async ORM":
            await Effect.objects.acount()
        case "async iteration":
            async for _ in Effect.objects.all():
                pass
        case "thread":
            threading.Thread(target=print).start()
        case "to_thread":
            await asyncio.to_thread(print)
        case "executor":
            await asyncio.get_running_loop().run_in_executor(None, print)
        case "socket":
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        case "open_connection":
            await asyncio.open_connection("127.0.0.1", 9)
        case "name lookup":
            socket.getaddrinfo("localhost", 80)
        case "subprocess":
            subprocess.run(["true"], check=True)
        case "async subprocess":
            await asyncio.create_subprocess_exec("true")
        case "in a background task":
            asyncio.create_task(asyncio.to_thread(print))  # noqa: RUF006
            await go_on.receive()
        case _:
            raise AssertionError(how)


MISBEHAVIOURS = [
    "sync ORM", "async ORM", "async iteration", "thread", "to_thread", "executor", "socket", "open_connection",
    "name lookup", "subprocess", "async subprocess", "in a background task",
]  # fmt: skip


@pytest.mark.parametrize("how", MISBEHAVIOURS)
def test_what_cannot_be_replayed_is_refused_with_the_remedy(worker: Worker, how: str) -> None:
    handle = misbehave.start(how)
    with pytest.raises(WorkflowFailed, match=r"NotAllowedInWorkflowError.*activity"):
        handle.result(timeout=10)
    assert greet.start("hello").result(timeout=10) == "hello world"


BLOCKING: dict[str, bool] = {}
BUSY = 0.6


def _spin(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass


@workflow(name="determinism.take_long")
async def take_long(how: str) -> str:
    if how == "sleep":
        time.sleep(BUSY)  # what the test is about: it blocks the whole worker
    elif how == "endless loop":
        while BLOCKING.get(how, True):
            pass
    elif how == "stubborn loop":
        for _ in range(3):
            try:
                _spin(300 if BLOCKING.get(how, True) else 0)
            except BaseException:
                note(how, "caught")
    elif how == "in a background task":

        async def spin() -> None:
            while BLOCKING.get(how, True):
                pass

        await asyncio.create_task(spin())
    elif how == "in a callback":
        asyncio.get_running_loop().call_soon(_spin, BUSY if BLOCKING.get(how, True) else 0)
        await asyncio.sleep(0.01)
    return "came back"


@pytest.fixture
def short_steps(consistent_tables: None) -> Iterator[None]:
    with override_settings(DJANGO_WORKFLOWS={"STEP_TIME_LIMIT": 0.2}):
        yield


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("how", ["sleep", "endless loop", "stubborn loop", "in a background task", "in a callback"])
def test_a_step_over_the_limit_blocks_with_the_place_and_the_remedy(cache_size: int, how: str) -> None:
    BLOCKING[how] = True
    with running_worker(sticky_cache_size=cache_size):
        handle = take_long.start(how)
        eventually(lambda: handle.status == InstanceStatus.BLOCKED, timeout=20)
        failure = Failure.decode(handle.describe().failure or "")
        assert failure.type.endswith("StepTimeLimitExceeded")
        assert "STEP_TIME_LIMIT" in failure.message and "activity" in failure.message
        assert "test_determinism.py" in failure.message and "take_long" in failure.message
        assert types(handle) == []
        assert greet.start("hello").result(timeout=20) == "hello world"
        BLOCKING[how] = False
        if how == "sleep":
            handle.terminate()
        else:
            assert handle.result(timeout=20) == "came back"

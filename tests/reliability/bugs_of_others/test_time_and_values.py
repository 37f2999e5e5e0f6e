"""Times that were rounded or noticed late, and values that were cut or not looked at."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from django_workflows import InstanceStatus, RetryPolicy, activity, workflow
from django_workflows.models import ActivityTask, Timer
from django_workflows.testing import running_worker
from tests.conformance.gates import open_gate, wait_at_gate
from tests.conformance.waiting import eventually

from .support import word

LATE = timedelta(seconds=5)  # far below the 30 s of the bug, far above what a busy machine takes


@workflow(name="others.sleep")
async def sleep(seconds: float) -> None:
    await workflow.sleep(seconds)


def test_an_idle_worker_fires_timers_in_time_also_those_from_before_its_start(cache_size: int) -> None:
    """go-workflows: after a restart nothing woke the worker for existing timers, for up to 30 s; Redis: 2 s late."""
    with running_worker(sticky_cache_size=cache_size):
        handle = sleep.start(1.5)
        timer = eventually(Timer.objects.first)
    with running_worker(sticky_cache_size=cache_size):
        handle.result(timeout=60)
        other = sleep.start(0.5)
        other.result(timeout=60)
    [fired] = [event.time for event in handle.history() if event.type == "TimerFired"]
    assert timer.fire_at <= fired < timer.fire_at + LATE
    started, fired = (event.time for event in other.history() if event.type.startswith("Timer"))
    assert timedelta(seconds=0.5) <= fired - started < timedelta(seconds=0.5) + LATE


@workflow(name="others.moments")
async def moments() -> list[datetime]:
    found = [workflow.now()]
    for _ in range(3):
        await word.receive()
        found.append(workflow.now())
    return found


def test_now_has_microseconds_and_is_the_same_on_replay(cache_size: int) -> None:
    """go-workflows, MySQL: times of whole seconds, so Now differed between the first run and the replay."""
    handle = moments.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(handle.history, timeout=60)
        for number in range(3):
            handle.signal(word, "tick")
            eventually(lambda n=number: len(handle.history()) >= n + 2, timeout=60)  # type: ignore[misc]
        found = handle.result(timeout=60)
    steps = [event.time for event in handle.history() if event.type in ("InstanceStarted", "SignalReceived")]
    assert found == steps
    assert sorted(set(found)) == found and any(moment.microsecond % 1000 for moment in found)


@activity(name="others.report", retry=RetryPolicy(max_attempts=1))
def report(key: str, size: int) -> None:
    activity.heartbeat("d" * size)
    wait_at_gate(key)


@workflow(name="others.long_texts")
async def long_texts(key: str, size: int) -> None:
    workflow.set_attributes(text="a" * size)
    await report(key, size)


def test_what_is_stored_beside_values_is_not_cut_either(cache_size: int) -> None:
    """go-workflows, MySQL: metadata of more than 64 KB did not fit."""
    size, gate = 200_000, f"long {cache_size}"
    with running_worker(sticky_cache_size=cache_size):
        handle = long_texts.start(gate, size)
        eventually(lambda: ActivityTask.objects.filter(heartbeat__isnull=False), timeout=60)
        assert size < len(ActivityTask.objects.get().heartbeat or "") < size + 10
        open_gate(gate)
        handle.result(timeout=60)
    assert handle.describe().attributes == {"text": "a" * size}


@activity(name="others.any_and_number", retry=RetryPolicy(max_attempts=1))
def any_and_number(anything: Any, number: int) -> int:
    return number


@workflow(name="others.untyped_first")
async def untyped_first(anything: Any, number: int) -> list[Any]:
    return [anything, await any_and_number(anything, number)]


def test_a_parameter_of_any_type_hides_no_fault_in_those_behind_it(cache_size: int) -> None:
    """go-workflows: the check of arguments stopped advancing after a parameter of an interface type."""
    with pytest.raises(TypeError, match="number"):
        untyped_first.start({"a": 1})  # type: ignore[call-arg]
    with running_worker(sticky_cache_size=cache_size):
        assert untyped_first.start({"a": 1}, 7).result(timeout=60) == [{"a": 1}, 7]
        wrong = untyped_first.start({"a": 1}, "seven")  # type: ignore[arg-type]
        eventually(lambda: wrong.status is InstanceStatus.BLOCKED, timeout=60)
        assert "number" in (wrong.describe().failure or "")
    wrong.terminate()

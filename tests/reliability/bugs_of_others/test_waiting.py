"""Waiting and its outcomes: wake-ups that got lost, waits that replay forgot, results in the order of their making."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.db import connections

from django_workflows import WorkflowHandle, activity, workflow
from django_workflows.models import InboxEvent
from django_workflows.store.work import TurnBatch, TurnResult
from django_workflows.testing import running_worker
from django_workflows.worker.committer import Committer
from tests.conformance.gates import note as write_down
from tests.conformance.gates import open_gate, wait_at_gate, wait_for_notes
from tests.conformance.waiting import eventually, in_threads

from .support import collect, word


def types(handle: WorkflowHandle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


def test_a_signal_between_the_decision_to_wait_and_its_commit_wakes_the_instance(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absurd #61, tensorzero/durable #37: an emit between the look for events and the store of the wait was lost."""
    commit, sent = Committer.commit, threading.Event()
    handle = collect.start(1)

    def with_a_signal_before(self: Committer, batch: TurnBatch) -> TurnResult:
        if batch.steps and not sent.is_set():
            sent.set()
            assert in_threads(lambda: handle.signal(word, "just now")) == [None]
        return commit(self, batch)

    monkeypatch.setattr(Committer, "commit", with_a_signal_before)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=60) == ["just now"]
    assert sent.is_set()


def test_signals_that_race_the_waits_of_many_instances_are_all_received(cache_size: int) -> None:
    """Absurd #61, by chance: emits and awaits at full speed."""
    handles = collect.start_many([(5,)] * 10)

    def send() -> None:
        for number in range(5):
            for handle in handles:
                handle.signal(word, str(number))
        connections.close_all()

    with running_worker(sticky_cache_size=cache_size):
        sender = threading.Thread(target=send)
        sender.start()
        assert [handle.result(timeout=60) for handle in handles] == [list("01234")] * 10
        sender.join()


@activity(name="others.pass")
def pass_gate(key: str) -> str:
    wait_at_gate(key)
    return key


@workflow(name="others.time_out")
async def time_out(key: str) -> list[str]:
    """Wait for a signal in vain, then for an activity, then for the signal again."""
    try:
        async with asyncio.timeout(0.05):
            return [await word.receive()]
    except TimeoutError:
        return ["timed out", await pass_gate(key), await word.receive()]


def test_a_wait_that_timed_out_is_not_waited_for_again_by_a_replay(cache_size: int) -> None:
    """Absurd #96: a timed-out wait left no checkpoint, so the next run waited again; #138: it then took an event that
    came after the timeout."""
    gate = f"timed out {cache_size}"
    with running_worker(sticky_cache_size=cache_size, threads=1):
        handle = time_out.start(gate)
        eventually(lambda: "ActivityScheduled" in types(handle))
        handle.signal(word, "after the timeout")
        eventually(lambda: not InboxEvent.objects.exists())
        open_gate(gate)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=60) == ["timed out", gate, "after the timeout"]
    found = types(handle)
    assert [found.count(name) for name in ("TimerStarted", "TimerFired", "SignalReceived")] == [1, 1, 1]


@activity(name="others.left_open")
def left_open(key: str) -> str:
    write_down(key, activity.defer())
    return key


@workflow(name="others.gather")
async def gather_different(key: str) -> list[Any]:
    """Run different things side by side, each followed by another."""

    async def one_by_one(name: str) -> list[str]:
        return [await left_open(f"{key} {name} 1"), await left_open(f"{key} {name} 2")]

    async def sleep_first() -> str:
        await workflow.sleep(0.01)
        return await left_open(f"{key} c 1")

    return await asyncio.gather(one_by_one("a"), one_by_one("b"), sleep_first())


def test_what_runs_side_by_side_may_end_in_any_order_and_is_replayed_so(cache_size: int) -> None:
    """DBOS #688, #551: steps of a gather were recorded as they were scheduled; recovery met unexpected ones."""
    key = f"gather {cache_size}"
    handle = gather_different.start(key)
    for name in ("c 1", "b 1", "a 1", "b 2", "a 2"):
        with running_worker(sticky_cache_size=cache_size):
            [token] = wait_for_notes(f"{key} {name}", timeout=60)
            activity.complete(token, name)
            eventually(lambda name=name: name in results(handle), timeout=60)  # type: ignore[misc]
    assert handle.result(timeout=60) == [["a 1", "a 2"], ["b 1", "b 2"], "c 1"]
    assert results(handle) == ["c 1", "b 1", "a 1", "b 2", "a 2"]


def results(handle: WorkflowHandle[Any]) -> list[str]:
    return [event.data["result"] for event in handle.history() if event.type == "ActivityCompleted"]

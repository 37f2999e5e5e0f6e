"""Whether the simulation would notice: with a protection taken away, some seed must find a violation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from django_workflows.models import InboxEvent
from django_workflows.store import answers, attempts, closing, leftovers, mail, turns, workers
from django_workflows.store.work import ClaimedTask
from django_workflows.worker import finder

from .connection import SimulatedDialect
from .simulation import run

_SEEDS = 150


def find_violation(first: int = 0) -> str:
    """Return the first violation from a seed on, or nothing; what is rare is looked for where it soon happens."""
    for seed in range(first, first + _SEEDS):
        found = run(seed).violation
        if found is not None:
            return str(found)
    return ""


def test_a_missing_fence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (turns, workers):
        monkeypatch.setattr(module, "fence", lambda database, cursor, worker_id: None)
    assert "was declared dead" in find_violation()


def test_steps_that_are_not_compared_with_the_history_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lock_nothing(database: Any, cursor: Any, worker_id: int, batch: Any, result: Any) -> Any:
        turns._release(database, cursor, batch.releases)
        return batch.steps

    monkeypatch.setattr(turns, "_lock_steps", lock_nothing)
    assert find_violation()


def test_a_missing_look_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "_LOOK_BACK", math.inf)
    monkeypatch.setattr(finder.Finder, "look_back_soon", lambda self: None)
    assert "does not come to rest" in find_violation()


def test_deleting_the_inbox_by_range_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    by_key, inbox = SimulatedDialect.delete, InboxEvent._meta.db_table

    def delete(self: Any, cursor: Any, model: Any, key: Any, keys: Sequence[Any], where: str = "") -> int:
        if model is InboxEvent and keys:
            ids = [row[0] if isinstance(row, tuple) else row for row in keys]
            chains = f"SELECT chain_id FROM {inbox} WHERE id IN ({', '.join(map(str, ids))})"
            cursor.execute(f"DELETE FROM {inbox} WHERE id <= {max(ids)} AND chain_id IN ({chains})")
            return len(keys)
        return by_key(self, cursor, model, key, keys, where)

    monkeypatch.setattr(SimulatedDialect, "delete", delete)
    assert find_violation()


def test_a_lost_lease_that_is_accepted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_all(database: Any, cursor: Any, worker_id: int, tasks: list[ClaimedTask], lock: Any) -> Any:
        return {(task.key, task.attempt) for task in tasks}

    monkeypatch.setattr(attempts, "_lock_leased", find_all)
    assert find_violation()


def test_tasks_that_are_left_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "delete_unlocked", lambda database, cursor, keys: None)
    assert "left tasks or timers" in find_violation()


def test_children_that_a_termination_does_not_reach_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "close_children", lambda database, parent_id, reason: None)
    assert "with its parent, and was told []" in find_violation(57)


def test_children_that_a_step_does_not_reach_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail.Mail, "tell_child", lambda self, step, command, policy, reason: None)
    assert "with its parent, and was told []" in find_violation()


def test_updates_that_nobody_answers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_answer_updates", lambda database, ids: set())
    assert "is pending at rest" in find_violation()


def test_updates_that_are_not_rejected_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers.Answers, "_fail", lambda self, update_id, status, failure, time: None)
    assert "at rest" in find_violation()

"""A worker outlives errors that are nobody's fault but its own, and clean-up code that does not end."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError

from django_workflows import Signal, workflow
from django_workflows.store import workers
from django_workflows.store.work import TurnBatch, TurnResult
from django_workflows.testing import running_worker
from django_workflows.worker.committer import Committer
from django_workflows.worker.loop import TurnLoop
from tests.testapp.workflows import greet

pytestmark = pytest.mark.django_db(transaction=True)

never: Signal[bool] = Signal("never", bool)


@workflow(name="worker_errors.endless_clean_up")
async def endless_clean_up() -> None:
    try:
        await never.receive()
    finally:
        while True:
            pass


def test_an_unexpected_error_in_a_turn_starts_the_worker_over(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, failures = TurnLoop.turn, [KeyError("a bug")]

    def failing_once(self: TurnLoop) -> bool:
        if failures:
            raise failures.pop()
        return turn(self)

    monkeypatch.setattr(TurnLoop, "turn", failing_once)
    with running_worker():
        assert greet.start("hello").result(timeout=20) == "hello world"
    assert not failures


def test_a_turn_that_the_database_refuses_whole_is_offered_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    commit, failures = Committer.commit, [IntegrityError("refused")]
    repeated: list[int] = []

    def refusing_once(self: Committer, batch: TurnBatch) -> TurnResult:
        if batch.steps and failures:
            raise failures.pop()
        repeated.append(len(batch.steps) - len({id(step) for step in batch.steps}))
        return commit(self, batch)

    monkeypatch.setattr(Committer, "commit", refusing_once)
    with running_worker():
        assert greet.start("hello").result(timeout=20) == "hello world"
    assert not failures
    assert set(repeated) == {0}


def test_clean_up_code_that_never_ends_does_not_stop_others(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"STEP_TIME_LIMIT": 0.2}
    with running_worker(sticky_cache_size=0):
        endless_clean_up.start()  # leaves memory after its first step
        assert greet.start("hello").result(timeout=20) == "hello world"


def test_a_worker_that_cannot_retire_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lose_connection(*args: Any) -> None:
        raise OperationalError("server closed the connection\nunexpectedly")

    monkeypatch.setattr(workers, "retire", lose_connection)
    with running_worker():
        pass
    said = [(entry.levelname, entry.message) for entry in caplog.records if entry.levelno >= logging.WARNING]
    [(level, message)] = said
    assert level == "WARNING"
    assert "server closed the connection unexpectedly" in message

"""Calling the store as a worker does."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.db import connection, transaction

from django_workflows import Signal, WorkflowHandle, workflow
from django_workflows.engine import events as ev
from django_workflows.engine.steps import Step
from django_workflows.retries import RetryPolicy
from django_workflows.store import claims, workers
from django_workflows.store.database import Database
from django_workflows.store.turns import commit_turn
from django_workflows.store.work import InstanceStep, LoadedInstance, TaskKey, TurnBatch, TurnResult

from .waiting import eventually, in_threads

LEASE = timedelta(seconds=30)
note = Signal("note", int)


@workflow(name="store.anything")
async def anything() -> None: ...


def start(count: int = 1) -> list[WorkflowHandle[None]]:
    return anything.start_many([()] * count)


def register(lease: timedelta = LEASE) -> int:
    return workers.register(Database(), queues=["default"], slots=4, lease=lease)


def commit(worker_id: int, batch: TurnBatch) -> TurnResult:
    database = Database()
    database.prepare_worker_session(LEASE.total_seconds())
    return commit_turn(database, worker_id, batch)


def claim(worker_id: int, *handles: WorkflowHandle[Any]) -> list[LoadedInstance]:
    """Claim instances and return them as loaded, in the order of the handles."""
    keys = [handle.describe().instance_key for handle in handles]
    claimed = commit(worker_id, TurnBatch(claim_instances=keys)).claimed_instances
    loaded = {entry.chain.open_key: entry for entry in claims.load_instances(Database(), claimed)}
    return [loaded[key] for key in keys]


def first_step(loaded: LoadedInstance, *decisions: ev.Event) -> InstanceStep:
    step = Step(time=datetime.now(UTC), events=[ev.InstanceStarted(), *decisions])
    return InstanceStep(loaded.chain, step, consumed=[row.id for row in loaded.inbox])


def activity_scheduled(command: int = 1, **options: Any) -> ev.ActivityScheduled:
    options.setdefault("retry", RetryPolicy().to_json())
    return ev.ActivityScheduled(
        command=command, name="store.task", input=msgspec.Raw(b"[[],{}]"), queue="default", options=options
    )


def completed(command: int = 9) -> ev.InstanceCompleted:
    return ev.InstanceCompleted(command=command, result=msgspec.Raw(b"null"))


def scheduled_task(worker_id: int, **options: Any) -> TaskKey:
    """Return the key of an unleased activity task of a new instance."""
    [loaded] = claim(worker_id, *start())
    commit(worker_id, TurnBatch(steps=[first_step(loaded, activity_scheduled(1, **options))]))
    return TaskKey(loaded.chain.instance, 1)


@contextmanager
def elsewhere(action: Callable[[], object], end: str = "rollback") -> Iterator[None]:
    """Hold a transaction that has done something open on another connection for the length of the block."""
    done, leave = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def hold() -> None:
        with transaction.atomic():
            action()
            done.set()
            leave.wait(timeout=20)
            transaction.set_rollback(end == "rollback")

    thread = threading.Thread(target=lambda: errors.extend(e for e in in_threads(hold) if e is not None))
    thread.start()
    eventually(lambda: done.is_set() or not thread.is_alive())
    try:
        yield
    finally:
        leave.set()
        thread.join(timeout=20)
    assert not errors, errors


@contextmanager
def right_behind_the_read_of(table: str, action: Callable[[], object]) -> Iterator[None]:
    """Have something else happen, on another connection, when this thread has read a table for the first time."""
    pending, done = [action], threading.Event()
    reads = re.compile(rf"(?:FROM|JOIN) ([`\"]?){table}\1\s")  # Django quotes names, our own statements do not

    def watch(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        result = execute(sql, params, many, context)
        if pending and sql.startswith("SELECT") and reads.search(sql):
            errors = [answer for answer in in_threads(pending.pop()) if isinstance(answer, BaseException)]
            assert not errors, errors
            done.set()
        return result

    with connection.execute_wrapper(watch):
        yield
    assert done.is_set(), f"{table} was not read"


def skip_without_row_locks() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time and no row locks")

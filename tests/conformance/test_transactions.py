"""The client inside the caller's transactions: what is rolled back was never there, what is committed runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.models.signals import post_save
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from django.utils import timezone

from django_workflows import InstanceAlreadyExists, InstanceStatus, Signal, WorkflowCancelled, wakeups, workflow
from django_workflows.exceptions import ResultInTransactionError
from django_workflows.models import HistoryEvent, InboxEvent, OpenInstance, WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect

from .waiting import eventually, in_threads, waiting_for_locks

number = Signal("number", int)


@workflow(name="transactions.collect")
async def collect(count: int) -> list[int]:
    """Return the first `count` numbers that arrive."""
    return [await number.receive() for _ in range(count)]


class Undone(Exception):
    pass


def stored_rows() -> int:
    return sum(model._default_manager.count() for model in (WorkflowInstance, OpenInstance, InboxEvent, HistoryEvent))


@contextmanager
def counted_wakeups() -> Iterator[list[int]]:
    calls: list[int] = []
    with wakeups.local(lambda: calls.append(1)):
        yield calls


@contextmanager
def rolled_back(savepoint: bool = False) -> Iterator[None]:
    with pytest.raises(Undone), transaction.atomic(savepoint=savepoint):
        yield
        raise Undone


# Rollback


def test_rolled_back_start_leaves_no_row_and_no_wakeup() -> None:
    with counted_wakeups() as calls:
        with rolled_back():
            collect.using(instance_id="order-1").start(1)
            collect.start_many([(1,), (2,)])
        assert stored_rows() == 0
        assert calls == []


def test_id_of_a_rolled_back_start_is_free(worker: Worker) -> None:
    with rolled_back():
        collect.using(instance_id="order-1").start(0)

    assert collect.using(instance_id="order-1").start(0).result(timeout=10) == []


def test_committed_start_wakes_once_it_is_committed_and_not_before() -> None:
    with counted_wakeups() as calls, transaction.atomic():
        collect.start(0)
        assert calls == []
    assert calls == [1]


def test_start_is_invisible_to_workers_until_the_commit(worker: Worker) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("an open write transaction keeps the worker out altogether")
    with transaction.atomic():
        handle = collect.start(0)
        other = in_threads(lambda: collect.start(0).result(timeout=10))
        assert other == [[]], "a later instance runs while the transaction is open"
        assert handle.history() == []
    assert handle.result(timeout=10) == []


def test_rolled_back_signal_is_never_seen(worker: Worker) -> None:
    handle = collect.start(1)
    with counted_wakeups() as calls, rolled_back():
        handle.signal(number, 1)
    assert calls == []

    handle.signal(number, 2)
    assert handle.result(timeout=10) == [2]


def test_rolled_back_cancel_is_never_seen(worker: Worker) -> None:
    handle = collect.start(1)
    with rolled_back():
        handle.cancel("changed my mind")

    handle.signal(number, 1)
    assert handle.result(timeout=10) == [1]


def test_rolled_back_terminate_leaves_the_instance_running(worker: Worker) -> None:
    handle = collect.start(1)
    eventually(handle.history)
    with rolled_back():
        handle.terminate("changed my mind")
        assert handle.status is InstanceStatus.TERMINATED

    assert handle.status is InstanceStatus.RUNNING
    handle.signal(number, 1)
    assert handle.result(timeout=10) == [1]


def test_rolled_back_remove_keeps_the_instance(worker: Worker) -> None:
    handle = collect.start(0)
    handle.result(timeout=10)
    with rolled_back():
        handle.remove()

    assert handle.result() == []
    assert len(handle.history()) == 2


def test_rolled_back_terminate_existing_brings_the_old_instance_back(worker: Worker) -> None:
    old = collect.using(instance_id="order-1").start(1)
    eventually(old.history)
    with rolled_back():
        collect.using(instance_id="order-1", on_conflict="terminate_existing").start(2)

    old.signal(number, 7)
    assert old.result(timeout=10) == [7]
    assert WorkflowInstance.objects.count() == 1


# Commit


def test_start_signal_and_cancel_commit_together_with_the_callers_rows(worker: Worker) -> None:
    with transaction.atomic():
        Effect.objects.create(key="order")
        handle = collect.start(2)
        handle.signal(number, 1)
        handle.signal(number, 2)
        cancelled = collect.start(1)
        cancelled.cancel("never mind")
    assert handle.result(timeout=10) == [1, 2]
    with pytest.raises(WorkflowCancelled):
        cancelled.result(timeout=10)
    assert Effect.objects.count() == 1


def test_savepoint_takes_back_what_it_holds_and_no_more(worker: Worker) -> None:
    with transaction.atomic():
        kept = collect.using(instance_id="kept").start(1)
        with rolled_back(savepoint=True):
            collect.using(instance_id="undone").start(1)
            kept.signal(number, 1)
        kept.signal(number, 2)
        # The id is free again inside the same transaction.
        again = collect.using(instance_id="undone").start(0)
    assert kept.result(timeout=10) == [2]
    assert again.result(timeout=10) == []
    assert WorkflowInstance.objects.count() == 2


def test_conflict_inside_a_transaction_leaves_it_usable() -> None:
    collect.using(instance_id="taken").start(1)
    with transaction.atomic():
        Effect.objects.create(key="before")
        with pytest.raises(InstanceAlreadyExists):
            collect.using(instance_id="taken").start(1)
        Effect.objects.create(key="after")
    assert Effect.objects.count() == 2
    assert WorkflowInstance.objects.count() == 1


def test_loser_of_a_race_inside_a_transaction_goes_on_with_it() -> None:
    """Both look, find nothing and insert; the one whose insert fails keeps its transaction."""

    def start_in_a_transaction() -> str:
        with transaction.atomic():
            Effect.objects.create(key="mine")
            try:
                collect.using(instance_id="raced").start(1)
                outcome = "won"
            except InstanceAlreadyExists:
                outcome = "lost"
            Effect.objects.create(key=outcome)
        return outcome

    assert sorted(map(str, in_threads(*[start_in_a_transaction] * 3))) == ["lost", "lost", "won"]
    assert Effect.objects.count() == 6
    assert WorkflowInstance.objects.count() == InboxEvent.objects.count() == 1


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_start_of_an_id_that_another_transaction_has_just_started_waits_for_its_end(ending: str) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("there is one writer at a time, which is waited for anyway")
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.extend(in_threads(start_late))) for _ in range(3)]

    def start_late() -> Any:
        return collect.using(instance_id="raced").start(1)

    try:
        with transaction.atomic():
            collect.using(instance_id="raced").start(1)
            for thread in threads:
                thread.start()
            eventually(lambda: waiting_for_locks() >= 3)
            if ending == "rollback":
                raise Undone
    except Undone:
        pass
    for thread in threads:
        thread.join(timeout=10)

    errors = [type(answer) for answer in answers if isinstance(answer, BaseException)]
    assert errors == [InstanceAlreadyExists] * (3 if ending == "commit" else 2)
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == 1


# Waiting inside a transaction


def test_result_inside_the_transaction_of_the_start_is_a_clear_error(worker: Worker) -> None:
    with transaction.atomic():
        handle = collect.using(instance_id="order-1").start(0)
        with pytest.raises(ResultInTransactionError, match=r"'order-1'.*open transaction.*after the commit"):
            handle.result(timeout=10)
    assert handle.result(timeout=10) == []


def test_result_of_a_closed_instance_may_be_read_inside_a_transaction(worker: Worker) -> None:
    handle = collect.start(0)
    handle.result(timeout=10)

    with transaction.atomic():
        assert handle.result() == []


# Where Django opens the transaction


def start_in_view(request: HttpRequest, instance_id: str) -> HttpResponse:
    Effect.objects.create(key=instance_id)
    collect.using(instance_id=instance_id).start(0)
    if "fail" in request.GET:
        raise Undone
    return HttpResponse("started")


urlpatterns = [path("start/<instance_id>/", start_in_view)]


@pytest.mark.urls(__name__)
def test_start_in_a_view_under_atomic_requests_follows_the_request(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    client = Client(raise_request_exception=False)

    assert client.get("/start/broken/?fail=1").status_code == 500
    assert stored_rows() == 0
    assert not Effect.objects.exists()

    assert client.get("/start/whole/").content == b"started"
    assert collect.handle("whole").result(timeout=10) == []


@pytest.fixture
def starts_on_save() -> Iterator[None]:
    def start(sender: type[Effect], instance: Effect, created: bool, **kwargs: Any) -> None:
        if created:
            collect.using(instance_id=f"effect-{instance.pk}", subject=instance).start(0)

    post_save.connect(start, sender=Effect)
    yield
    post_save.disconnect(start, sender=Effect)


def test_start_in_a_post_save_receiver_follows_the_saved_row(worker: Worker, starts_on_save: None) -> None:
    with rolled_back():
        Effect.objects.create(key="undone")
    assert stored_rows() == 0

    effect = Effect.objects.create(key="kept")
    [row] = WorkflowInstance.objects.for_subject(effect)
    assert collect.handle(row.instance_id).result(timeout=10) == []


def test_error_in_a_wakeup_does_not_look_like_a_failed_commit(worker: Worker) -> None:
    def fail() -> None:
        raise Undone

    with wakeups.local(fail):
        handle = collect.start(0)
    assert handle.result(timeout=10) == []


# Long transactions of the application


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda handle: handle.signal(number, 1), id="signal"),
        pytest.param(lambda handle: handle.cancel(), id="cancel"),
        pytest.param(lambda handle: handle.terminate(), id="terminate"),
    ],
)
def test_long_transaction_about_one_instance_delays_no_other(send: Callable[[Any], None], worker: Worker) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("an open write transaction keeps every other writer out")
    handle, other = collect.start(1), collect.start(1)
    eventually(lambda: handle.history() and other.history())

    def finish_the_other() -> list[int]:
        other.signal(number, 5)
        return other.result(timeout=5)

    with transaction.atomic():
        send(handle)
        assert in_threads(finish_the_other) == [[5]]
    # The message counts once it is committed, whatever the worker tried meanwhile.
    if InstanceStatus(handle.status) is not InstanceStatus.TERMINATED:
        eventually(lambda: InstanceStatus(handle.status).is_closed)


def test_signal_that_commits_long_after_younger_ones_is_delivered(worker: Worker) -> None:
    """Its row has a lower id than rows that every worker has read already."""
    if connection.vendor == "sqlite":
        pytest.skip("there is one writer at a time, so rows commit in order")
    handle = collect.start(1)
    eventually(handle.history)
    with transaction.atomic():
        handle.signal(number, 1)
        # More traffic than one page, and long enough for every watermark to pass.
        for _ in range(3):
            in_threads(lambda: [h.result(timeout=20) for h in collect.start_many([(0,)] * 300)])
    # By the look back, which on a busy machine costs much, and is done the less often.
    assert handle.result(timeout=60) == [1]


def test_times_are_utc_whatever_the_time_zone_of_the_callers_session(worker: Worker) -> None:
    if connection.vendor != "mysql":
        pytest.skip("only MySQL has times that depend on the session")
    with connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+05:00'")
    try:
        handle = collect.start(1)
        handle.signal(number, 1)
        handle.result(timeout=10)
        terminated = collect.start(1)
        terminated.terminate()
        rows = [handle.describe(), terminated.describe()]
        times = [time for row in rows for time in (row.created_at, row.closed_at) if time is not None]
        times += [event.time for event in (*handle.history(), *terminated.history())]
        assert len(times) >= 8
        assert max(abs((timezone.now() - time).total_seconds()) for time in times) < 60
    finally:
        connection.close()


def test_worker_started_inside_the_block_only_sees_committed_rows() -> None:
    with rolled_back():
        collect.start(0)
    handle = collect.start(0)
    with running_worker():
        assert handle.result(timeout=10) == []
    assert WorkflowInstance.objects.count() == 1

"""One open instance per id, whoever starts it at the same time; many instances started at once."""

from __future__ import annotations

import pytest

from django_workflows import (
    InstanceAlreadyExists,
    InstanceNotRunning,
    InstanceStatus,
    PayloadError,
    WorkflowTerminated,
)
from django_workflows.models import InboxEvent, OpenInstance, WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.workflows import greet

from .samples import echo, go, nothing_is_stored, wait_for_go
from .waiting import eventually, in_threads

# One open instance per id


def test_starting_an_open_id_is_refused_and_changes_nothing() -> None:
    wait_for_go.using(instance_id="order-1").start()

    with pytest.raises(InstanceAlreadyExists, match=r"'order-1'.*on_conflict"):
        wait_for_go.using(instance_id="order-1").start()
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == InboxEvent.objects.count() == 1


@pytest.mark.parametrize("round", range(5))
def test_of_threads_that_start_one_id_exactly_one_wins(round: int) -> None:
    answers = in_threads(*[wait_for_go.using(instance_id="raced").start] * 4)

    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(error) for error in errors] == [InstanceAlreadyExists] * 3
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == InboxEvent.objects.count() == 1


def test_threads_that_start_one_id_with_use_existing_all_get_the_one_instance() -> None:
    answers = in_threads(*[wait_for_go.using(instance_id="raced", on_conflict="use_existing").start] * 4)

    assert not [answer for answer in answers if isinstance(answer, BaseException)]
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == 1


def test_threads_that_start_one_id_with_terminate_existing_replace_each_other() -> None:
    replace = wait_for_go.using(instance_id="raced", on_conflict="terminate_existing")
    answers = in_threads(*[replace.start] * 4)

    assert not [answer for answer in answers if isinstance(answer, BaseException)], answers
    statuses = sorted(WorkflowInstance.objects.values_list("status", flat=True))
    assert statuses == ["running", "terminated", "terminated", "terminated"]
    assert OpenInstance.objects.count() == 1


def test_starts_that_race_with_the_close_of_the_old_instance_all_succeed(worker: Worker) -> None:
    """use_existing and terminate_existing have an answer whatever became of the instance they met."""
    for policy in ("use_existing", "terminate_existing"):
        start = echo.using(instance_id=f"closing-{policy}", on_conflict=policy).start
        for _ in range(10):
            answers = in_threads(*[lambda start=start: start("x")] * 3)  # type: ignore[misc]
            assert not [answer for answer in answers if isinstance(answer, BaseException)], answers


def test_use_existing_returns_the_open_instance_and_ignores_the_arguments() -> None:
    first = echo.using(instance_id="order-1").start("first")
    second = echo.using(instance_id="order-1", on_conflict="use_existing").start("second")

    assert second.describe().pk == first.describe().pk
    assert WorkflowInstance.objects.count() == 1
    with running_worker():
        assert second.result(timeout=10) == "first"


def test_terminate_existing_closes_the_open_instance_and_takes_its_place(worker: Worker) -> None:
    old = wait_for_go.using(instance_id="order-1").start()
    execution_id = old.describe().execution_id
    eventually(lambda: old.history())

    new = wait_for_go.using(instance_id="order-1", on_conflict="terminate_existing").start()

    with pytest.raises(WorkflowTerminated, match="replaced by a new start"):
        wait_for_go.handle("order-1", execution_id).result(timeout=10)
    new.signal(go, "new")
    assert new.result(timeout=10) == "new"


def test_unknown_conflict_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"on_conflict.*'ignore'"):
        wait_for_go.using(on_conflict="ignore").start()
    assert nothing_is_stored()


def test_closed_id_can_be_started_again_and_both_executions_stay_readable(worker: Worker) -> None:
    handle = echo.using(instance_id="order-1").start("first")
    assert handle.result(timeout=10) == "first"
    first = handle.describe().execution_id

    echo.using(instance_id="order-1").start("second")

    assert handle.result(timeout=10) == "second", "a handle follows the newest execution"
    bound = echo.handle("order-1", first)
    assert bound.execution_id == first
    assert bound.result(timeout=10) == "first"
    assert len(bound.history()) == len(handle.history()) == 2


def test_messages_of_a_bound_handle_do_not_reach_a_later_execution(worker: Worker) -> None:
    handle = wait_for_go.using(instance_id="order-1").start()
    handle.signal(go, "first")
    handle.result(timeout=10)
    bound = wait_for_go.handle("order-1", handle.describe().execution_id)
    wait_for_go.using(instance_id="order-1").start()

    for send in (lambda: bound.signal(go, "second"), bound.cancel, bound.terminate):
        with pytest.raises(InstanceNotRunning):
            send()
    assert handle.status is InstanceStatus.RUNNING


@pytest.mark.parametrize("ids", [("a", "A"), ("e", "é"), ("e\u0301", "é"), ("x", "x "), ("ß", "ss"), ("1", "\uff11")])
def test_ids_that_a_collation_finds_equal_are_different(ids: tuple[str, str], worker: Worker) -> None:
    handles = [echo.using(instance_id=instance_id).start(instance_id) for instance_id in ids]

    assert [handle.result(timeout=10) for handle in handles] == list(ids)
    assert [echo.handle(instance_id).describe().instance_id for instance_id in ids] == list(ids)


@pytest.mark.parametrize("bad", ["", "x" * 256, "a\x00b", "\ud800"])
def test_id_that_cannot_be_stored_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="instance_id"):
        echo.using(instance_id=bad).start("x")
    assert nothing_is_stored()


def test_id_of_255_characters_beyond_the_basic_plane_works() -> None:
    instance_id = "🛒" * 255
    assert echo.using(instance_id=instance_id).start(1).describe().instance_id == instance_id


def test_id_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"instance_id.*int"):
        echo.using(instance_id=17).start("x")


# start_many


def test_start_many_starts_ten_thousand_in_few_statements(django_assert_max_num_queries: object) -> None:
    # SQLite allows 999 parameters a statement, so its rows go in many more batches.
    from django.db import connection

    most = 600 if connection.vendor == "sqlite" else 150
    with django_assert_max_num_queries(most):  # type: ignore[operator]
        handles = echo.start_many((number,) for number in range(10_000))

    assert len(handles) == 10_000
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == InboxEvent.objects.count() == 10_000
    assert handles[1234].describe().input.startswith("[[1234]")


def test_start_many_results_come_back_in_order(worker: Worker) -> None:
    handles = greet.start_many([(str(number),) for number in range(300)])

    assert [handle.result(timeout=60) for handle in handles] == [f"{number} world" for number in range(300)]


def test_start_many_is_all_or_nothing() -> None:
    echo.using(instance_id="b").start(0)

    with pytest.raises(InstanceAlreadyExists, match="'b'"):
        echo.start_many([(1,), (2,)], instance_ids=["a", "b"])
    with pytest.raises(InstanceAlreadyExists, match="twice"):
        echo.start_many([(1,), (2,)], instance_ids=["a", "a"])
    with pytest.raises(TypeError):
        echo.start_many([(1,), ()])
    with pytest.raises(PayloadError):
        echo.start_many([(1,), (float("nan"),)])
    with pytest.raises(ValueError, match="2 calls, found 1"):
        echo.start_many([(1,), (2,)], instance_ids=["a"])
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == 1


def test_of_threads_that_start_many_overlapping_ids_one_wins_whole() -> None:
    ids = [f"n-{number}" for number in range(50)]
    calls = [
        lambda: echo.start_many([(0,)] * 50, instance_ids=ids),
        lambda: echo.start_many([(1,)] * 50, instance_ids=reversed(ids)),
    ]
    answers = in_threads(*calls)

    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(error) for error in errors] == [InstanceAlreadyExists], errors
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == InboxEvent.objects.count() == 50

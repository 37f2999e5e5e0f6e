"""Removing one instance with all that is theirs, and collecting what others left behind."""

from __future__ import annotations

import threading
from itertools import permutations

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_workflows import InstanceNotFinished, InstanceNotFound, InstanceStatus
from django_workflows.models import ActivityTask, InboxEvent, Timer, WorkflowInstance, WorkflowUpdate
from django_workflows.store import leftovers, messages, retention
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.workflows import greet

from .removal_support import busy, chain, continued_then_waiting, rows_left, sleeper, wake
from .store_support import elsewhere, skip_without_row_locks
from .waiting import assert_tables_consistent, collect_leftovers, eventually, in_threads, waiting_for_locks

# One by one


def test_removed_instance_is_gone_with_its_history(worker: Worker) -> None:
    handle = greet.using(instance_id="order-1").start("hello")
    other = greet.start("other")
    handle.result(timeout=10)
    other.result(timeout=10)

    handle.remove()

    with pytest.raises(InstanceNotFound):
        handle.describe()
    assert rows_left() == {"WorkflowInstance": 1, "HistoryEvent": 4}
    assert other.result() == "other world"


def test_removal_takes_tasks_timers_and_messages_along(cache_size: int) -> None:
    """A terminated instance leaves them behind for the sweep, which may not have come by yet."""
    handle = busy.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: ActivityTask.objects.exists() and Timer.objects.count() == 2)
    handle.signal(wake, "too late")
    handle.terminate()
    [child] = WorkflowInstance.objects.open()
    sleeper.handle(child.instance_id).terminate()
    assert set(rows_left()) == {"WorkflowInstance", "HistoryEvent", "InboxEvent", "ActivityTask", "Timer"}

    handle.remove()
    sleeper.handle(child.instance_id).remove()

    assert rows_left() == {}


def test_open_instance_is_not_removed() -> None:
    handle = greet.using(instance_id="order-1").start("hello")

    with pytest.raises(InstanceNotFinished, match=r"'order-1'.*running.*cancel or terminate"):
        handle.remove()
    assert handle.status is InstanceStatus.RUNNING


def test_refused_removal_leaves_the_callers_transaction_usable() -> None:
    handle = greet.start("hello")
    with transaction.atomic():
        with pytest.raises(InstanceNotFinished):
            handle.remove()
        assert handle.status is InstanceStatus.RUNNING


def test_unknown_instance_is_not_removed() -> None:
    with pytest.raises(InstanceNotFound):
        greet.handle("nobody").remove()


def test_removing_one_execution_keeps_the_others_of_its_id(worker: Worker) -> None:
    handle = greet.using(instance_id="order-1").start("first")
    handle.result(timeout=10)
    first = handle.describe().execution_id
    greet.using(instance_id="order-1").start("second").result(timeout=10)

    greet.handle("order-1", first).remove()

    assert handle.result() == "second world"
    with pytest.raises(InstanceNotFound):
        greet.handle("order-1", first).describe()


def test_closed_execution_of_an_open_id_can_be_removed(worker: Worker) -> None:
    handle = busy.using(instance_id="order-1").start()
    handle.signal(wake, "first")
    handle.result(timeout=10)
    first = handle.describe().execution_id
    busy.using(instance_id="order-1").start()

    busy.handle("order-1", first).remove()

    handle.signal(wake, "second")
    assert handle.result(timeout=10) == "second"


def test_removal_waits_for_whoever_holds_the_row_and_then_removes_it(worker: Worker) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("there is one writer at a time")
    handle = greet.start("hello")
    handle.result(timeout=10)
    with transaction.atomic():
        WorkflowInstance.objects.select_for_update().get(pk=handle.describe().pk)
        remover = threading.Thread(target=in_threads, args=(handle.remove,))
        remover.start()
        eventually(lambda: waiting_for_locks() >= 1)
    remover.join(timeout=10)
    assert rows_left() == {}


# Chains


def ended_chain(cache_size: int, rounds: int) -> list[WorkflowInstance]:
    """Give the executions of a terminated instance that continued as new, with an unread signal and an update."""
    handle = continued_then_waiting.start(rounds)
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: WorkflowInstance.objects.count() == rounds + 1 and not InboxEvent.objects.exists())
    handle.signal(wake, "too late")
    handle.terminate()
    executions = list(WorkflowInstance.objects.order_by("id"))
    WorkflowUpdate.objects.create(
        update_id="a",
        chain_id=executions[0].pk,
        name="change",
        input="1",
        status="completed",
        answered_at=timezone.now(),
    )
    return executions


def remove_execution(execution: WorkflowInstance) -> None:
    continued_then_waiting.handle(execution.instance_id, execution.execution_id).remove()


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_removing_a_chain_bit_by_bit_leaves_nothing(cache_size: int, order: tuple[int, ...]) -> None:
    executions = ended_chain(cache_size, rounds=2)
    for index in order:
        remove_execution(executions[index])
    assert rows_left() == {}


def test_messages_and_updates_go_with_the_last_execution(cache_size: int) -> None:
    executions = ended_chain(cache_size, rounds=2)
    remove_execution(executions[0])
    assert {"InboxEvent", "WorkflowUpdate"} < set(rows_left())
    remove_execution(executions[2])
    assert set(rows_left()) == {"WorkflowInstance", "HistoryEvent"}


def test_the_last_execution_is_known_by_what_follows_it_and_not_by_its_status(cache_size: int) -> None:
    executions = ended_chain(cache_size, rounds=1)
    WorkflowInstance.objects.filter(pk=executions[0].pk).update(status=InstanceStatus.FAILED)
    remove_execution(executions[0])
    assert {"InboxEvent", "WorkflowUpdate"} < set(rows_left())


@pytest.mark.parametrize("held", [0, 1], ids=["first", "last"])
def test_two_that_remove_parts_of_one_chain_at_once_leave_nothing(cache_size: int, held: int) -> None:
    skip_without_row_locks()
    executions = ended_chain(cache_size, rounds=1)
    with elsewhere(lambda: remove_execution(executions[held]), end="commit"):
        assert in_threads(lambda: remove_execution(executions[1 - held])) == [None]
    assert rows_left() == {}


def test_long_chain_is_removed_in_pages(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    handle = chain.start(6)
    handle.result(timeout=20)
    handle.remove()
    assert rows_left() == {}


# Leftovers


def test_worker_sweeps_what_a_terminated_instance_left_behind(cache_size: int) -> None:
    handle = busy.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: ActivityTask.objects.exists() and Timer.objects.count() == 2)
    handle.terminate()

    with running_worker(sticky_cache_size=cache_size):
        # The child was asked to cancel, which ends its timer; the parent's own rows are swept.
        eventually(lambda: not Timer.objects.exists() and not ActivityTask.objects.exists())
        eventually(lambda: not InboxEvent.objects.exists())
    assert set(WorkflowInstance.objects.values_list("status", flat=True)) == {"terminated", "cancelled"}


def test_sweep_leaves_open_instances_alone(cache_size: int) -> None:
    handle = busy.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: ActivityTask.objects.exists() and Timer.objects.count() == 2)
    before = rows_left()

    assert leftovers.sweep(Database()) == 0
    assert rows_left() == before
    handle.signal(wake, "done")
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "done"


def test_messages_that_were_committed_after_the_removal_are_collected(cache_size: int) -> None:
    skip_without_row_locks()
    handle = sleeper.start()

    def send() -> None:
        handle.signal("anything", 1)
        messages.update(Database(), handle.instance_id, None, "f" * 32, "change", b"[[],{}]")

    with elsewhere(send, end="commit"):
        handle.terminate()
        handle.remove()
    assert set(rows_left()) == {"InboxEvent", "WorkflowUpdate"}

    assert_tables_consistent()  # does what a worker does with leftovers
    assert rows_left() == {}


def test_an_update_that_another_collector_did_not_get_round_to_is_answered(cache_size: int) -> None:
    """Two workers meet the same leftover; the one that has locked the update dies."""
    skip_without_row_locks()
    handle = sleeper.start()
    messages.update(Database(), handle.instance_id, None, "f" * 32, "change", b"[[],{}]")
    handle.terminate()
    with elsewhere(lambda: list(WorkflowUpdate.objects.select_for_update()), end="rollback"):
        collect_leftovers()
    assert WorkflowUpdate.objects.get().status == WorkflowUpdate.Status.PENDING

    collect_leftovers()
    assert WorkflowUpdate.objects.get().status == WorkflowUpdate.Status.REJECTED

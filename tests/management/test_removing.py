"""`removeworkflow` and `pruneworkflows`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_workflows.management.command import ExitCode
from django_workflows.models import WorkflowInstance
from django_workflows.worker.worker import Worker
from tests.conformance.removal_support import rows_left

from .calls import document, refusal, run, typing
from .workflows import describe, fail, rounds, wait

pytestmark = pytest.mark.usefixtures("consistent_tables")


def test_a_closed_instance_is_removed_with_all_its_executions(worker: Worker) -> None:
    handle = rounds.using(instance_id="a").start(2)
    handle.signal("go", "x")
    handle.result(timeout=10)
    assert run("removeworkflow", "a", "--noinput").out == "Removed commands.rounds a\n"
    assert rows_left() == {}


def test_one_execution_is_removed(worker: Worker) -> None:
    handle = rounds.using(instance_id="a").start(1)
    handle.signal("go", "x")
    handle.result(timeout=10)
    first = WorkflowInstance.objects.order_by("id")[0].execution_id
    assert document("removeworkflow", "a", "--execution-id", first, "--noinput")["execution_id"] == first
    assert WorkflowInstance.objects.count() == 1


def test_removal_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    wait.using(instance_id="a").start().terminate()
    assert "--noinput" in str(refusal("removeworkflow", "a"))
    typing(monkeypatch, "no\n")
    assert str(refusal("removeworkflow", "a")) == "Cancelled: nothing was changed"
    assert WorkflowInstance.objects.exists()
    typing(monkeypatch, "YES\n")
    assert "This removes commands.wait a (terminated)" in run("removeworkflow", "a").err
    assert not WorkflowInstance.objects.exists()


def test_an_open_instance_is_not_removed() -> None:
    wait.using(instance_id="a").start()
    error = refusal("removeworkflow", "a")
    assert "cancel or terminate it first" in str(error)
    assert error.returncode == ExitCode.WRONG_STATE


def test_an_unknown_instance_is_not_found() -> None:
    assert refusal("removeworkflow", "a").returncode == ExitCode.NOT_FOUND


# In bulk


def closed(days: float, **handles: Any) -> None:
    """Make instances look as if they had closed that long ago."""
    ids = [handle.instance_id for handle in handles.values()]
    closed_at = timezone.now() - timedelta(days=days)
    WorkflowInstance.objects.filter(instance_id__in=ids, closed_at__isnull=False).update(closed_at=closed_at)


@pytest.fixture
def old_and_new(worker: Worker) -> None:
    """Two completed instances and a failed one of forty days ago, a completed one of now, and a running one."""
    old = {f"old-{number}": describe.using(instance_id=f"old-{number}").start(number) for number in range(2)}
    old["failed"] = fail.using(instance_id="failed").start()
    new = describe.using(instance_id="new").start(17)
    for handle in (*old.values(), new):
        handle.wait_closed(timeout=10)
    closed(40, **old)
    wait.using(instance_id="running").start()


def left() -> set[str]:
    return set(WorkflowInstance.objects.values_list("instance_id", flat=True))


def test_prune_removes_what_closed_long_ago(old_and_new: None) -> None:
    output = run("pruneworkflows", "--older-than", "30d", "--noinput")
    assert output.out == "Removed 3 executions (2 completed, 1 failed)\n"
    assert output.err == ""
    assert left() == {"new", "running"}


def test_prune_removes_the_statuses_that_are_named(old_and_new: None) -> None:
    arguments = ("--older-than", "30d", "--status", "failed", "--status", "cancelled", "--noinput")
    found = document("pruneworkflows", *arguments)
    assert (found["total"], found["by_status"]) == (1, {"failed": 1, "cancelled": 0})
    assert left() == {"old-0", "old-1", "new", "running"}


def test_a_dry_run_counts_by_status_and_asks_nothing(old_and_new: None) -> None:
    assert run("pruneworkflows", "--older-than", "30d", "--dry-run").out == (
        "Would remove 3 executions (2 completed, 1 failed)\n"
    )
    found = document("pruneworkflows", "--older-than", "30d", "--dry-run")
    assert found["dry_run"] is True
    assert {status: count for status, count in found["by_status"].items() if count} == {"completed": 2, "failed": 1}
    assert len(left()) == 5


def test_pruning_is_confirmed_with_the_numbers(old_and_new: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--noinput" in str(refusal("pruneworkflows", "--older-than", "30d"))
    typing(monkeypatch, "no\n")
    assert refusal("pruneworkflows", "--older-than", "30d").returncode == ExitCode.FAILED
    assert len(left()) == 5
    typing(monkeypatch, "yes\n")
    output = run("pruneworkflows", "--older-than", "30d")
    assert output.err.startswith("This removes 3 executions (2 completed, 1 failed), closed before ")
    assert left() == {"new", "running"}


def test_nothing_to_prune_needs_no_confirmation() -> None:
    assert run("pruneworkflows", "--older-than", "30d").out == "Removed 0 executions\n"


def test_batches_are_bounded_and_their_progress_is_shown(old_and_new: None) -> None:
    arguments = ("--older-than", "30d", "--batch-size", "1", "--noinput", "--verbosity", "2")
    assert run("pruneworkflows", *arguments).err.splitlines() == [
        "completed: 1 removed",
        "completed: 2 removed",
        "failed: 1 removed",
    ]


def test_the_age_is_a_duration(old_and_new: None) -> None:
    assert document("pruneworkflows", older_than=timedelta(days=30), dry_run=True)["total"] == 3
    assert document("pruneworkflows", older_than="2w", dry_run=True)["total"] == 3
    assert document("pruneworkflows", "--older-than", "0s", "--dry-run")["total"] == 4
    for wrong in ("30", "30 days", "1y", "-1d", "1e9d", "40000d", ""):
        error = refusal("pruneworkflows", f"--older-than={wrong}", "--noinput")
        assert "a number with its unit" in str(error)
    assert len(left()) == 5


def test_only_closed_statuses_can_be_pruned() -> None:
    error = refusal("pruneworkflows", "--older-than", "30d", "--status", "running")
    assert "expected one of completed, failed" in str(error)
    assert "--status" in str(refusal("pruneworkflows", older_than="30d", statuses=["running"]))

"""`workflowpatches`."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflows import Signal, WorkflowHandle, workflow
from django_workflows.models import HistoryEvent, WorkflowInstance
from django_workflows.testing import running_worker
from tests.conformance.waiting import eventually

from .calls import document, run

pytestmark = pytest.mark.usefixtures("consistent_tables")

go_on: Signal[None] = Signal("patches_go_on", type(None))


@workflow(name="commands.patched", aliases=["commands.before_its_new_name"])
async def patched(patches: list[str]) -> None:
    for patch in patches:
        workflow.patched(patch)
    await go_on.receive()


def start(*patches: str) -> WorkflowHandle[None]:
    handle = patched.start(list(patches))
    eventually(lambda: HistoryEvent.objects.filter(instance_id=handle.describe().pk).count() == 1 + len(patches))
    return handle


def found() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = document("workflowpatches")["patches"]
    return listed


def test_patches_of_open_instances_are_counted_with_those_that_lack_them() -> None:
    with running_worker():
        old, both = start("first"), start("first", "second")
        assert found() == [
            {"workflow": "commands.patched", "patch": "first", "with": 2, "without": 0, "old_path_needed": False},
            {"workflow": "commands.patched", "patch": "second", "with": 1, "without": 1, "old_path_needed": True},
        ]
        old.signal(go_on)
        old.result(timeout=10)
        assert [(one["patch"], one["with"], one["without"]) for one in found()] == [("first", 1, 0), ("second", 1, 0)]
        both.terminate()
        assert found() == []
        assert run("workflowpatches").out == "No open instance has a patch\n"


def test_instances_of_an_older_name_count_with_the_workflow_that_they_are_now() -> None:
    with running_worker():
        start("first")
        renamed = start()
    WorkflowInstance.objects.filter(pk=renamed.describe().pk).update(name="commands.before_its_new_name")
    (use,) = found()
    assert (use["workflow"], use["with"], use["without"]) == ("commands.patched", 1, 1)


def test_the_table_says_what_may_be_removed() -> None:
    with running_worker():
        start("first")
        start("first", "second")
    heading, first, second = run("workflowpatches", "--name", "commands.before_its_new_name").out.splitlines()
    assert heading.split() == ["WORKFLOW", "PATCH", "OPEN", "WITH", "OPEN", "WITHOUT", "OLD", "PATH"]
    assert first.split() == ["commands.patched", "first", "2", "0", "may", "be", "removed"]
    assert second.split() == ["commands.patched", "second", "1", "1", "needed"]
    assert run("workflowpatches", "--name", "commands.unknown").out == "No open instance has a patch\n"

"""`listworkflows`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_workflows.models import WorkflowInstance
from django_workflows.worker.worker import Worker
from tests.conformance.waiting import eventually

from .calls import document, refusal, run
from .workflows import describe, fail, rounds, wait

pytestmark = pytest.mark.usefixtures("consistent_tables")


def listed(*arguments: str, **options: Any) -> list[str]:
    return [found["instance_id"] for found in document("listworkflows", *arguments, **options)["instances"]]


def test_instances_are_listed_newest_first(worker: Worker) -> None:
    describe.using(instance_id="a").start(17).result(timeout=10)
    wait.using(instance_id="order 17").start()
    eventually(lambda: document("listworkflows")["instances"][0]["history_length"] == 1)

    heading, *lines = run("listworkflows").out.splitlines()

    assert heading.split() == ["STATUS", "STARTED", "DURATION", "EVENTS", "WORKFLOW", "INSTANCE", "ID"]
    assert [line.split()[0] for line in lines] == ["running", "completed"]
    assert [line[heading.index("EVENTS") :].split(maxsplit=2) for line in lines] == [
        ["1", "commands.wait", "'order 17'"],
        ["2", "commands.describe", "a"],
    ]


def test_the_document_has_the_same() -> None:
    wait.using(instance_id="a", queue="slow").start()
    [found] = document("listworkflows")["instances"]
    row = WorkflowInstance.objects.get()
    assert found == {
        "instance_id": "a",
        "execution_id": row.execution_id,
        "workflow": "commands.wait",
        "status": "running",
        "queue": "slow",
        "version": "",
        "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
        "closed_at": None,
        "history_length": 0,
    }


def test_nothing_is_an_answer_too() -> None:
    assert run("listworkflows").out == "No instances\n"
    assert document("listworkflows") == {"instances": [], "more": False}


def test_filters_by_status(worker: Worker) -> None:
    describe.using(instance_id="completed").start(17).result(timeout=10)
    fail.using(instance_id="failed").start().wait_closed(timeout=10)
    wait.using(instance_id="running").start()
    assert listed("--status", "failed") == ["failed"]
    assert listed("--status", "failed", "--status", "running") == ["running", "failed"]
    assert "did you mean completed" in str(refusal("listworkflows", "--status", "complete"))


def test_filters_by_workflow_also_under_its_older_names() -> None:
    describe.using(instance_id="new").start(17)
    describe.using(instance_id="old").start(17)
    wait.using(instance_id="other").start()
    WorkflowInstance.objects.filter(instance_id="old").update(name="commands.old_describe")
    assert listed("--name", "commands.describe") == ["old", "new"]
    assert listed("--name", "commands.old_describe") == ["old", "new"]


def test_an_unknown_workflow_is_noted(only_commands: None) -> None:
    output = run("listworkflows", "--name", "commands.wiat")
    assert output.out == "No instances\n"
    assert "did you mean commands.wait" in output.err


def test_a_workflow_that_is_no_longer_registered_can_be_listed() -> None:
    wait.using(instance_id="a").start()
    WorkflowInstance.objects.update(name="commands.gone")
    output = run("listworkflows", "--name", "commands.gone")
    assert "commands.gone" in output.out and output.err == ""


def test_filters_by_queue() -> None:
    wait.using(instance_id="a", queue="slow").start()
    wait.using(instance_id="b").start()
    assert listed("--queue", "slow") == ["a"]


def test_filters_by_id_exactly_whatever_the_database_takes_for_equal() -> None:
    for instance_id in ("order", "Order", "order ", "örder", "order-1", "order_1", "100%"):
        wait.using(instance_id=instance_id).start()
    assert listed("--instance-id", "order") == ["order"]
    assert listed("--instance-id-prefix", "order") == ["order_1", "order-1", "order ", "order"]
    assert listed("--instance-id-prefix", "Or") == ["Order"]
    assert listed("--instance-id-prefix", "order_") == ["order_1"]
    assert listed("--instance-id-prefix", "100%") == ["100%"]


def test_filters_by_age() -> None:
    for instance_id, hours in (("old", 30), ("middle", 3), ("new", 0)):
        wait.using(instance_id=instance_id).start()
        created = timezone.now() - timedelta(hours=hours)
        WorkflowInstance.objects.filter(instance_id=instance_id).update(created_at=created)
    assert listed("--older-than", "1d") == ["old"]
    assert listed("--newer-than", "1h") == ["new"]
    assert listed("--older-than", "2h", "--newer-than", "1d") == ["middle"]
    assert listed(older_than=timedelta(hours=2)) == listed(older_than="2h") == ["middle", "old"]


def test_a_limit_is_told() -> None:
    wait.start_many([()] * 3, instance_ids=["a", "b", "c"])
    assert document("listworkflows", "--limit", "2")["more"] is True
    assert document("listworkflows", "--limit", "3")["more"] is False
    assert run("listworkflows", "--limit", "2").out.splitlines()[-1].startswith("There are more")


def test_more_verbosity_shows_execution_ids(worker: Worker) -> None:
    rounds.using(instance_id="a").start(1)
    eventually(lambda: len(listed()) == 2)
    lines = run("listworkflows", "--verbosity", "2").out.splitlines()
    newest, oldest = WorkflowInstance.objects.order_by("-id")
    assert lines[0].startswith("EXECUTION ID ")
    assert [line.split()[:2] for line in lines[1:]] == [
        [newest.execution_id, "running"],
        [oldest.execution_id, "continued_as_new"],
    ]


def test_statuses_are_coloured_where_colours_are_wanted() -> None:
    wait.using(instance_id="a").start().terminate()
    assert "\x1b[" not in run("listworkflows").out
    assert "\x1b[33;1mterminated\x1b[0m" in run("listworkflows", "--force-color").out

"""`queryworkflow` and `updateworkflow`."""

from __future__ import annotations

import json
import re

import pytest
from django.test import override_settings

from django_workflows import InstanceStatus, WorkflowHandle, registry
from django_workflows.management.command import ExitCode
from django_workflows.models import WorkflowUpdate
from django_workflows.worker.worker import Worker
from tests.conformance.waiting import eventually

from .calls import attempt, document, refusal, run
from .workflows import Ledger, wait

pytestmark = pytest.mark.usefixtures("consistent_tables")

ENTRY = ("updateworkflow", "books", "enter", '"2026-03-01"', "990")


def start() -> WorkflowHandle[None]:
    return Ledger.using(instance_id="books").start()


# Queries


def test_a_query_prints_its_answer(worker: Worker) -> None:
    handle = start()
    run(*ENTRY)
    assert run("queryworkflow", "books", "total").out == "990\n"
    assert run("queryworkflow", "books", "all").out == '{\n  "2026-03-01": 990\n}\n'
    assert document("queryworkflow", "books", "total", '"2026-01-01"', "--kwargs", '{"factor": 2}') == {
        "instance_id": "books",
        "query": "total",
        "answer": 1980,
    }
    assert run("queryworkflow", "books", "total", "--kwargs", '{"since": "2026-04-01"}').out == "0\n"
    handle.signal(Ledger.end)
    handle.result(timeout=10)
    assert run("queryworkflow", "books", "total").out == "990\n", "of a closed instance too"


def test_a_query_needs_no_worker() -> None:
    handle = start()
    assert run("queryworkflow", "books", "total").out == "0\n"
    execution = handle.describe().execution_id
    Ledger.using(instance_id="books", on_conflict="terminate_existing").start()
    assert run("queryworkflow", "books", "total", "--execution-id", execution).out == "0\n"


def test_what_a_query_raises_is_an_error() -> None:
    start()
    error = refusal("queryworkflow", "books", "broken")
    assert str(error).startswith("the query 'broken' of books: raised\n  Traceback")
    assert str(error).endswith("  LookupError: no such \\u001b[31mentry")
    assert error.returncode == ExitCode.NOT_COMPLETED


# Updates


def test_an_update_prints_its_answer(worker: Worker) -> None:
    start()
    assert run(*ENTRY).out == '{\n  "2026-03-01": 990\n}\n'
    asked = document("updateworkflow", "books", "enter", '"2026-03-02"', "10", "--kwargs", '{"note": "tip"}')
    row = WorkflowUpdate.objects.get(pk=asked["update_id"])
    assert json.loads(row.input) == [["2026-03-02", 10], {"note": "tip"}]
    assert asked == {
        "instance_id": "books", "update": "enter", "update_id": row.pk, "status": "completed",
        "result": {"2026-03-01": 990, "2026-03-02": 10}, "failure": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cents", "note", "status", "message"),
    [
        ("-1", "", "rejected", "ValueError: expected an amount of 0 or more, found -1"),
        ("1", "forbidden", "failed", "LookupError: no such note"),
    ],
)
def test_an_update_that_is_not_done_says_why(worker: Worker, cents: str, note: str, status: str, message: str) -> None:
    handle = start()
    options = ("--format", "json", "--kwargs", json.dumps({"note": note}))
    output = attempt("updateworkflow", *options, "--", "books", "enter", '"2026-03-01"', cents)
    assert output.error is not None
    assert output.error.returncode == ExitCode.NOT_COMPLETED
    assert str(output.error).startswith(f"the update 'enter' of books: {status}\n")
    assert str(output.error).endswith(f"  {message}")
    assert (output.document["status"], output.document["result"]) == (status, None)
    assert output.document["failure"]["message"] in message
    assert handle.status is InstanceStatus.RUNNING


def test_an_update_of_an_instance_that_closes_is_not_answered() -> None:
    handle = start()
    update = handle.start_update(Ledger.never)
    handle.terminate()
    assert update.status == "pending"
    error = refusal("updateworkflow", "books", "never")
    assert error.returncode == ExitCode.WRONG_STATE


def test_an_update_is_not_taken_back_by_the_timeout(worker: Worker) -> None:
    handle = start()
    error = refusal("updateworkflow", "books", "never", "--timeout", "0s")
    assert error.returncode == ExitCode.TIMED_OUT
    assert re.search(r"update 'never' of 'books' is (pending|accepted) after 0 s", str(error))
    eventually(lambda: WorkflowUpdate.objects.get().status == "accepted")
    handle.terminate()


def test_a_missing_worker_is_noted() -> None:
    start()
    output = attempt(*ENTRY, "--timeout", "0s")
    assert output.error is not None
    assert output.err.startswith("No live worker serves the queue default now")


# Both


@pytest.mark.parametrize("command", ["queryworkflow", "updateworkflow"])
def test_wrong_questions_are_refused_and_nothing_is_asked(command: str) -> None:
    start()
    wait.using(instance_id="a function").start()
    name, known = ("total", "all, broken, total") if command == "queryworkflow" else ("enter", "enter, never")
    for arguments, message in [
        (["books", "totl"], f"'totl' in the workflow commands.Ledger, found {known}"),
        (["a function", name], "it is a function"),
        (["books", name, '"soon"', "1"], "argument"),
        (["books", name, "--kwargs", '{"colour": 1}'], "argument 'colour'|required argument"),
    ]:
        error = refusal(command, *arguments)
        assert re.search(message, str(error)), error
        assert error.returncode == ExitCode.USAGE, error
    assert not WorkflowUpdate.objects.exists()


@pytest.mark.parametrize("command", ["queryworkflow", "updateworkflow"])
def test_unknown_instances_and_unknown_code(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(command, "nobody", "total").returncode == ExitCode.NOT_FOUND
    start()
    monkeypatch.delitem(registry.workflows._definitions, "commands.Ledger")
    error = refusal(command, "books", "total")
    assert "INSTALLED_APPS" in str(error)
    assert error.returncode == ExitCode.FAILED


@override_settings(DJANGO_WORKFLOWS={"CODEC": "tests.management.workflows.Reversed"})
def test_answers_are_read_with_the_project_s_codec(worker: Worker) -> None:
    start()
    assert run(*ENTRY).out == '{\n  "2026-03-01": 990\n}\n'
    assert run("queryworkflow", "books", "total").out == "990\n"

"""`startworkflow`, and waiting for results."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import override_settings

from django_workflows import InstanceStatus, get_handle
from django_workflows.management.command import ExitCode
from django_workflows.models import WorkflowInstance
from django_workflows.worker.worker import Worker

from .calls import attempt, document, refusal, run
from .workflows import describe, fail, wait

pytestmark = pytest.mark.usefixtures("consistent_tables")


def test_arguments_are_json_by_position_and_by_keyword(worker: Worker) -> None:
    run("startworkflow", describe.name, "17", '"2026-03-01"', "--kwargs", '{"to": {"city": "Bern"}}', "--instance-id=a")
    assert get_handle("a").result(timeout=10) == "17 2026 Bern"


def test_options_may_stand_between_the_name_and_its_arguments() -> None:
    run("startworkflow", describe.name, "--instance-id", "a", "17")
    assert WorkflowInstance.objects.get(instance_id="a").input == "[[17],{}]"


def test_the_answer_names_the_instance() -> None:
    assert run("startworkflow", describe.name, "17", "--instance-id", "order 17").out == (
        "Started commands.describe 'order 17'\n"
    )
    started = document("startworkflow", describe.name, "17", "--queue", "slow")
    row = WorkflowInstance.objects.get(execution_id=started["execution_id"])
    assert started["instance_id"] == row.instance_id
    assert (started["workflow"], started["status"], started["queue"]) == (describe.name, "running", "slow")


def test_a_workflow_starts_under_its_older_name() -> None:
    assert document("startworkflow", "commands.old_describe", "17")["workflow"] == describe.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing a required argument: 'number'"),
        (['"x"'], "argument 'number'.*Expected `int`, got `str`"),
        (["1", '"tomorrow"'], "argument 'due'"),
        (["1", "--kwargs", '{"colour": 1}'], "unexpected keyword argument 'colour'"),
        (["1", "--kwargs", "[1]"], r"--kwargs: expected a JSON object"),
        (["one"], r"expected JSON, found 'one'.*'\"one\"'"),
        (["1", "--queue", "x" * 101], "1 to 100 characters"),
        (["1", "--on-conflict", "use-existing"], "did you mean use_existing"),
        (["1", "--timeout", "1s"], "--timeout is for --wait"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_starts(arguments: list[str], message: str) -> None:
    error = refusal("startworkflow", describe.name, *arguments)
    assert re.search(message, str(error)), error
    assert not WorkflowInstance.objects.exists()


@override_settings(DJANGO_WORKFLOWS={"MAX_PAYLOAD_BYTES": 100})
def test_arguments_above_the_limit_are_refused() -> None:
    error = refusal("startworkflow", wait.name, f'"{"x" * 100}"')
    assert "MAX_PAYLOAD_BYTES" in str(error)
    assert error.returncode == ExitCode.USAGE


def test_an_unknown_name_is_refused_with_close_ones() -> None:
    error = refusal("startworkflow", "commands.descibe", "17")
    assert str(error).startswith(
        "no workflow is registered under the name 'commands.descibe'; did you mean commands.describe"
    )
    assert error.returncode == ExitCode.USAGE


def test_a_name_that_is_like_no_other_is_refused_with_those_there_are(only_commands: None) -> None:
    assert "; there are commands." in str(refusal("startworkflow", "?????", "17"))


def test_an_open_id_is_a_conflict() -> None:
    run("startworkflow", wait.name, "--instance-id", "a")
    error = refusal("startworkflow", wait.name, "--instance-id", "a")
    assert "'a' is open" in str(error) and "--on-conflict" in str(error)
    assert error.returncode == ExitCode.WRONG_STATE


def test_conflict_policies_are_the_clients() -> None:
    first = document("startworkflow", wait.name, "--instance-id", "a")
    again = document("startworkflow", wait.name, "--instance-id", "a", "--on-conflict", "use_existing")
    assert again["execution_id"] == first["execution_id"]
    other = document("startworkflow", wait.name, "--instance-id", "a", "--on-conflict", "terminate_existing")
    assert other["execution_id"] != first["execution_id"]
    assert get_handle("a", first["execution_id"]).status is InstanceStatus.TERMINATED


# Waiting


def test_waiting_prints_the_result(worker: Worker) -> None:
    output = run("startworkflow", describe.name, "17", "--wait", "--instance-id", "a")
    assert (output.out, output.err) == ('"17 None None"\n', "Started commands.describe a\n")
    ended = document("startworkflow", describe.name, "18", "--wait", "--timeout", "30s")
    assert (ended["status"], ended["result"]) == ("completed", "18 None None")


def test_result_of_a_closed_instance(worker: Worker) -> None:
    describe.using(instance_id="a").start(17).result(timeout=10)
    assert run("workflowresult", "a").out == '"17 None None"\n'
    assert document("workflowresult", "a")["result"] == "17 None None"


def test_result_of_an_earlier_execution(worker: Worker) -> None:
    first = describe.using(instance_id="a").start(1)
    first.result(timeout=10)
    bound = first.describe().execution_id
    describe.using(instance_id="a").start(2).result(timeout=10)
    assert run("workflowresult", "a", "--execution-id", bound).out == '"1 None None"\n'


def test_a_failed_instance_is_an_error_with_its_traceback(worker: Worker) -> None:
    error = refusal("startworkflow", fail.name, "--instance-id", "a", "--wait")
    assert error.returncode == ExitCode.NOT_COMPLETED
    lines = str(error).splitlines()
    assert lines[0] == "commands.fail a: failed"
    assert lines[-1] == r"  LookupError: no such \u001b[31morder"


def test_a_failed_instance_is_a_document_and_an_error(worker: Worker) -> None:
    output = attempt("startworkflow", fail.name, "--wait", "--format", "json")
    assert (output.document["status"], output.document["result"]) == ("failed", None)
    assert output.document["failure"]["type"] == "builtins.LookupError"
    assert output.error is not None and output.error.returncode == ExitCode.NOT_COMPLETED


def test_a_terminated_instance_is_an_error_with_its_reason() -> None:
    wait.using(instance_id="a").start().terminate("a mistake")
    error = refusal("workflowresult", "a")
    assert str(error) == "commands.wait a: terminated\n  a mistake"
    assert error.returncode == ExitCode.NOT_COMPLETED


def test_waiting_ends_after_its_timeout(worker: Worker) -> None:
    error = refusal("startworkflow", wait.name, "--instance-id", "a", "--wait", "--timeout", "0s")
    assert "still running" in str(error)
    assert error.returncode == ExitCode.TIMED_OUT
    assert get_handle("a").status is InstanceStatus.RUNNING


def test_a_timeout_may_be_given_as_a_timedelta_or_as_text() -> None:
    wait.using(instance_id="a").start()
    for timeout in (timedelta(0), "0s"):
        assert refusal("workflowresult", "a", timeout=timeout).returncode == ExitCode.TIMED_OUT
    assert refusal("workflowresult", "a", timeout=10).returncode == ExitCode.USAGE


def test_waiting_without_a_worker_says_so() -> None:
    wait.using(instance_id="a").start()
    assert "No live worker serves the queue default" in attempt("workflowresult", "a", "--timeout", "0s").err


def test_result_of_an_unknown_instance() -> None:
    error = refusal("workflowresult", "nobody")
    assert "'nobody'" in str(error) and "`listworkflows`" in str(error)
    assert error.returncode == ExitCode.NOT_FOUND

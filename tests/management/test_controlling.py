"""`signalworkflow`, `cancelworkflow` and `terminateworkflow`."""

from __future__ import annotations

import pytest

from django_workflows import InstanceStatus, WorkflowCancelled
from django_workflows.management.command import ExitCode
from django_workflows.models import InboxEvent
from django_workflows.worker.worker import Worker

from .calls import document, refusal, run, typing
from .workflows import rounds, wait

pytestmark = pytest.mark.usefixtures("consistent_tables")

COMMANDS = [("signalworkflow", "a", "go"), ("cancelworkflow", "a"), ("terminateworkflow", "a", "--noinput")]


def test_a_signal_arrives_with_its_value(worker: Worker) -> None:
    handle = wait.using(instance_id="order 17").start()
    assert run("signalworkflow", "order 17", "go", '"now"').out == "Sent the signal 'go' to 'order 17'\n"
    assert handle.result(timeout=10) == "now"


def test_a_signal_without_a_value_carries_null() -> None:
    wait.using(instance_id="a").start()
    assert document("signalworkflow", "a", "ping") == {"instance_id": "a", "signal": "ping", "value": None}
    assert InboxEvent.objects.get(type="SignalReceived").data == '{"name":"ping","value":null}'


def test_cancelling_asks_with_the_reason(worker: Worker) -> None:
    handle = wait.using(instance_id="a").start()
    assert run("cancelworkflow", "a", "--reason", "not needed").out == "Asked a to cancel\n"
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=10)
    assert {"reason": "not needed"} in [event.data for event in handle.history()]


def test_termination_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = wait.using(instance_id="a").start()
    typing(monkeypatch, "yes\n")
    output = run("terminateworkflow", "a", "--reason", "a mistake")
    assert output.out == "Terminated commands.wait a\n"
    assert output.err.startswith("This ends commands.wait a at once")
    assert "Type 'yes' to continue" in output.err
    assert handle.status is InstanceStatus.TERMINATED


@pytest.mark.parametrize("answer", ["no\n", "\n", "y\n", ""])
def test_anything_but_yes_changes_nothing(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    handle = wait.using(instance_id="a").start()
    typing(monkeypatch, answer)
    error = refusal("terminateworkflow", "a")
    assert str(error) == "Cancelled: nothing was changed"
    assert handle.status is InstanceStatus.RUNNING


def test_without_a_terminal_noinput_is_needed() -> None:
    handle = wait.using(instance_id="a").start()
    error = refusal("terminateworkflow", "a")
    assert "--noinput" in str(error)
    assert error.returncode == ExitCode.FAILED
    assert handle.status is InstanceStatus.RUNNING
    assert document("terminateworkflow", "a", "--noinput")["status"] == "terminated"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_unknown_instance_is_not_found(command: tuple[str, ...]) -> None:
    error = refusal(*command)
    assert "'a'" in str(error) and "`listworkflows`" in str(error)
    assert error.returncode == ExitCode.NOT_FOUND


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_closed_instance_is_in_the_wrong_state(command: tuple[str, ...]) -> None:
    wait.using(instance_id="a").start().terminate()
    error = refusal(*command)
    assert "found it terminated" in str(error) and "`showworkflow`" in str(error)
    assert error.returncode == ExitCode.WRONG_STATE


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_closed_execution_of_an_open_id_can_be_named(command: tuple[str, ...]) -> None:
    handle = rounds.using(instance_id="a").start(0)
    closed = handle.describe().execution_id
    rounds.using(instance_id="a", on_conflict="terminate_existing").start(0)
    assert refusal(*command, "--execution-id", closed).returncode == ExitCode.WRONG_STATE
    assert handle.status is InstanceStatus.RUNNING

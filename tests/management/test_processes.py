"""Real processes: exit codes, what goes to which stream, terminals, pipes and Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
from typing import Any

import pytest

from django_workflows import InstanceStatus
from django_workflows.worker.worker import Worker
from tests.conformance.waiting import eventually
from tests.conformance.workflows import collect
from tests.testapp.workflows import greet

pytestmark = pytest.mark.usefixtures("consistent_tables")

PIPES: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
Process = subprocess.CompletedProcess[str]


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "manage.py", *arguments]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **variables}


def manage(*arguments: str, **variables: str) -> Process:
    """Run a command without a terminal."""
    return subprocess.run(
        command_line(*arguments), env=environment(**variables), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def test_exit_codes_and_streams(worker: Worker) -> None:
    """One story, because each process takes a second: what is answered is on stdout, what went wrong on stderr."""
    started = manage("startworkflow", "processes.collect", "1", "--instance-id", "注文 1", "--format", "json")
    assert (started.returncode, started.stderr) == (0, "")
    assert json.loads(started.stdout)["instance_id"] == "注文 1"
    assert started.stdout.isascii()

    refused(2, "expected JSON", manage("startworkflow", "processes.collect", "one"))
    refused(2, "did you mean", manage("startworkflow", "processes.colect", "1"))
    refused(3, "nobody", manage("showworkflow", "nobody"))
    refused(4, "is open", manage("startworkflow", "processes.collect", "1", "--instance-id", "注文 1"))
    refused(4, "cancel or terminate", manage("removeworkflow", "注文 1", "--noinput"))
    refused(6, "still running", manage("workflowresult", "注文 1", "--timeout", "0s"))
    refused(1, "--noinput", manage("terminateworkflow", "注文 1"))

    assert manage("signalworkflow", "注文 1", "word", '"now"').returncode == 0
    ended = manage("workflowresult", "注文 1", "--timeout", "20s", "--format", "json")
    assert (ended.returncode, json.loads(ended.stdout)["result"], ended.stderr) == (0, ["now"], "")


def refused(code: int, message: str, process: Process) -> None:
    assert (process.returncode, process.stdout) == (code, "")
    assert message in process.stderr
    assert "Traceback" not in process.stderr


def test_an_instance_that_did_not_complete_is_an_exit_code_and_still_a_document() -> None:
    greet.using(instance_id="a").start("x").terminate("a mistake")
    ended = manage("workflowresult", "a", "--format", "json")
    assert ended.returncode == 5
    assert json.loads(ended.stdout)["status"] == "terminated"
    assert ended.stderr == "CommandError: testapp.greet a: terminated\n  a mistake\n"


def test_a_terminal_that_knows_ascii_only() -> None:
    greet.using(instance_id="注文").start("x")
    listed = manage("listworkflows", PYTHONIOENCODING="ascii")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert r"'\u6ce8\u6587'" in listed.stdout


def test_a_reader_that_has_seen_enough() -> None:
    process: Any = subprocess.Popen(command_line("listworkflows"), env=environment(), **PIPES)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=30)) == ("", 0)
    process.stderr.close()


def test_ctrl_c_while_waiting() -> None:
    handle = collect.using(instance_id="a").start(1)
    process: Any = subprocess.Popen(
        command_line("workflowresult", "a"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background has Ctrl-C ignored, and so have its children, these tests included.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with process:
        # The note comes just before the wait.
        assert process.stderr.readline().startswith("No live worker")
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "CommandError: Interrupted\n")
    assert handle.status is InstanceStatus.RUNNING


def test_a_question_on_a_terminal() -> None:
    handle = greet.using(instance_id="a").start("x")
    assert "Cancelled: nothing was changed" in on_a_terminal("no", "terminateworkflow", "a")
    assert handle.status is InstanceStatus.RUNNING
    assert "Terminated testapp.greet a" in on_a_terminal("yes", "terminateworkflow", "a")
    assert handle.status is InstanceStatus.TERMINATED


def on_a_terminal(answer: str, *arguments: str) -> str:
    """Run a command in a terminal, type an answer once it asks, and return what the screen shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command_line(*arguments), env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    shown = b""

    def read() -> bytes:
        """Take what has come to the screen; there is no more once the process is gone."""
        nonlocal shown
        if select.select([ours], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):
                shown += os.read(ours, 4096)
        return shown

    eventually(lambda: read().endswith(b"to cancel: "), timeout=30)
    os.write(ours, f"{answer}\n".encode())
    eventually(lambda: process.poll() is not None and read(), timeout=30)
    read()
    os.close(ours)
    return shown.decode()


def test_tables_that_are_not_there(tmp_path: Any) -> None:
    empty = {"DATABASE": "sqlite", "DATABASE_NAME": str(tmp_path / "empty.sqlite3")}
    refused(1, "are its migrations applied?", manage("listworkflows", **empty))

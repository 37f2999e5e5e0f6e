"""`showworkflow`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import override_settings
from django.utils import timezone

from django_workflows import InstanceStatus
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    Timer,
    Worker,
    WorkflowInstance,
    WorkflowUpdate,
)
from django_workflows.testing import running_worker
from tests.conformance.waiting import eventually

from .calls import document, refusal, run
from .workflows import busy, describe, fail, rounds, wait

pytestmark = pytest.mark.usefixtures("consistent_tables")


def section(output: str, title: str) -> list[str]:
    """Return the lines below a title, without their indentation."""
    lines = output.split(f"\n{title}\n", 1)[1].split("\n\n")[0].splitlines()
    return [line.removeprefix("  ") for line in lines]


def facts(output: str) -> dict[str, str]:
    """Return the labels and values at the top."""
    lines = output.split("\n\n")[1].splitlines()
    return {label: value for label, _, value in (line.strip().partition("  ") for line in lines)}


def working() -> Any:
    """Start an instance and return its handle once everything that it waits for is there."""
    handle = busy.using(instance_id="order 17", attributes={"campaign": "spring"}).start(17, gift=True)
    with running_worker():
        eventually(lambda: ActivityTask.objects.filter(attempt=1, last_failure__isnull=False).exists())
        eventually(lambda: Timer.objects.count() == 2)
    return handle


def test_a_running_instance_shows_what_it_has_at_work() -> None:
    working()
    output = run("showworkflow", "order 17").out

    assert output.splitlines()[0] == "commands.busy 'order 17'"
    assert facts(output)["Status"].strip() == "running"
    assert section(output, "Input") == ["order_id = 17", "gift = true"]
    assert section(output, "Attributes") == ["{", '  "campaign": "spring"', "}"]
    heading, refused, elsewhere = section(output, "Pending activities")
    assert heading.split() == ["COMMAND", "ACTIVITY", "QUEUE", "ATTEMPT", "STATE", "LAST", "ERROR"]
    assert refused.split()[:4] == ["1", "commands.refuse", "default", "1"]
    assert "Next attempt in " in refused and refused.endswith(r"ConnectionError: order 17\u000arefused")
    assert elsewhere.split()[:4] == ["2", "commands.elsewhere", "nobody", "0"]
    assert "no live worker serves this queue" in elsewhere
    assert section(output, "Timers")[1].split()[0] == "3"
    assert section(output, "Children")[1].split()[:2] == ["running", "commands.sleeper"]
    assert "History" not in output.split("Input")[1]


def test_the_document_has_the_same() -> None:
    handle = working()
    found = document("showworkflow", "order 17")

    assert found["execution_id"] == handle.describe().execution_id
    assert (found["workflow"], found["status"], found["history_length"]) == ("commands.busy", "running", 5)
    assert found["input"] == {"args": [17, True], "kwargs": {}}
    assert (found["result"], found["failure"], found["attributes"]) == (None, None, {"campaign": "spring"})
    refused, elsewhere = found["activities"]
    assert (refused["command"], refused["activity"], refused["attempt"]) == (1, "commands.refuse", 1)
    assert refused["state"] == "scheduled"
    assert refused["last_failure"]["message"] == "order 17\nrefused"
    assert (elsewhere["state"], elsewhere["worker"], "input" in elsewhere) == ("waiting", None, False)
    assert [timer["command"] for timer in found["timers"]] == [3]
    assert [child["workflow"] for child in found["children"]] == ["commands.sleeper"]
    assert found["cut"] == []
    assert "history" not in found


def test_the_states_of_activities() -> None:
    working()
    refused, elsewhere = ActivityTask.objects.order_by("command")
    row = Worker.objects.create(host="web-1", process_id=7, lease_until=timezone.now())
    ActivityTask.objects.filter(pk=refused.pk).update(available_at=None, owner_id=row.pk, heartbeat='{"row":3}')
    ActivityTask.objects.filter(pk=elsewhere.pk).update(available_at=None)
    running, deferred = document("showworkflow", "order 17")["activities"]
    assert (running["state"], running["worker"], running["heartbeat"]) == ("running", "web-1:7", {"row": 3})
    assert (deferred["state"], deferred["worker"]) == ("deferred", None)
    lines = section(run("showworkflow", "order 17").out, "Pending activities")
    assert "Running on web-1:7" in lines[1] and "Deferred" in lines[2]


def test_payloads_are_read_with_the_projects_codec() -> None:
    with override_settings(DJANGO_WORKFLOWS={"CODEC": "tests.management.workflows.Reversed"}):
        with running_worker():
            describe.using(instance_id="a").start(17).result(timeout=10)
        assert '"17' not in WorkflowInstance.objects.get().input
        assert document("showworkflow", "a")["input"] == {"args": [17], "kwargs": {}}
        assert section(run("showworkflow", "a").out, "Result") == ['"17 None None"']
        assert document("workflowresult", "a")["result"] == "17 None None"


def test_a_child_names_its_parent() -> None:
    working()
    child = WorkflowInstance.objects.get(name="commands.sleeper")
    assert facts(run("showworkflow", child.instance_id).out)["Parent"].strip() == "commands.busy 'order 17'"
    assert document("showworkflow", child.instance_id)["parent"] == "order 17"


def test_payloads_are_shown_whole_when_wanted() -> None:
    working()
    output = run("showworkflow", "order 17", "--payloads").out
    assert section(output, "Pending activities")[-4:] == [
        "Input of command 1", "  order_id = 17", "Input of command 2", "  no arguments",
    ]  # fmt: skip
    activities = document("showworkflow", "order 17", "--payloads")["activities"]
    assert activities[0]["input"] == {"args": [17], "kwargs": {}}


def test_long_payloads_are_shortened_unless_wanted_whole() -> None:
    wait.using(instance_id="a").start("x" * 1000)
    [shown] = section(run("showworkflow", "a").out, "Input")
    assert len(shown) < 400 and shown.endswith("(1,002 characters)")
    assert section(run("showworkflow", "a", "--payloads").out, "Input") == [f'note = "{"x" * 1000}"']
    assert document("showworkflow", "a")["input"]["args"] == ["x" * 1000]


def test_the_history_is_shown_when_wanted() -> None:
    with running_worker():
        describe.using(instance_id="a").start(17).result(timeout=10)
    lines = section(run("showworkflow", "a", "--history").out, "History")
    assert lines[0].split() == ["#", "TIME", "EVENT", "COMMAND", "NAME"]
    assert [line.split()[0] + " " + line.split()[3] for line in lines[1:]] == [
        "1 InstanceStarted",
        "2 InstanceCompleted",
    ]
    found = document("showworkflow", "a", "--history", "--payloads")["history"]
    assert [event["type"] for event in found] == ["InstanceStarted", "InstanceCompleted"]
    assert found[1]["data"]["result"] == "17 None None"
    assert "data" not in document("showworkflow", "a", "--history")["history"][0]


def test_results_carry_the_names_of_what_they_answer() -> None:
    working()
    with running_worker(queues=["nobody"], workflows=False), running_worker():
        eventually(lambda: HistoryEvent.objects.filter(type="ActivityCompleted").exists())
    lines = section(run("showworkflow", "order 17", "--history").out, "History")
    assert any(line.split()[3:] == ["ActivityCompleted", "2", "commands.elsewhere"] for line in lines)


def test_a_completed_instance_shows_its_result() -> None:
    with running_worker():
        describe.using(instance_id="a").start(17).result(timeout=10)
    output = run("showworkflow", "a").out
    assert section(output, "Result") == ['"17 None None"']
    assert {"Closed", "Duration"} < set(facts(output))


def test_a_failed_instance_shows_its_traceback() -> None:
    with running_worker():
        fail.using(instance_id="a").start().wait_closed(timeout=10)
    output = run("showworkflow", "a").out
    lines = section(output, "Failure")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == r"LookupError: no such \u001b[31morder"
    assert "\x1b" not in output
    assert document("showworkflow", "a")["failure"]["message"] == "no such \x1b[31morder"


def test_a_terminated_instance_shows_the_reason() -> None:
    wait.using(instance_id="a").start().terminate("a mistake")
    assert section(run("showworkflow", "a").out, "Reason") == ["a mistake"]


def test_a_blocked_instance_shows_why_and_when_it_is_tried_again() -> None:
    wait.using(instance_id="a").start()
    WorkflowInstance.objects.update(name="commands.unknown")
    with running_worker():
        eventually(lambda: document("showworkflow", "a")["status"] == "blocked")
    output = run("showworkflow", "a").out
    assert "UnknownWorkflowError" in section(output, "Blocked by")[-1]
    assert facts(output)["Next try"].strip().startswith("in ")
    assert document("showworkflow", "a")["next_try_at"] is not None


def test_unread_signals_are_shown() -> None:
    handle = wait.using(instance_id="a").start()
    handle.signal("other", {"n": 1})
    lines = section(run("showworkflow", "a").out, "Unread messages")
    assert [line.split()[:2] for line in lines[2:]] == [["SignalReceived", "other"]]
    [_, message] = document("showworkflow", "a", "--payloads")["messages"]
    assert (message["name"], message["data"]) == ("other", {"name": "other", "value": {"n": 1}})


def test_undelivered_signals_of_a_closed_instance_are_shown() -> None:
    handle = wait.using(instance_id="a").start()
    handle.signal("go", "too late")
    handle.terminate()
    lines = section(run("showworkflow", "a").out, "Undelivered signals: they came after the end")
    assert lines[1].split()[:2] == ["SignalReceived", "go"]


def test_a_closed_execution_of_an_open_chain_has_no_undelivered_signals() -> None:
    handle = rounds.using(instance_id="a").start(1)
    with running_worker():
        eventually(lambda: WorkflowInstance.objects.count() == 2 and not InboxEvent.objects.exists())
    handle.signal("go", "x")
    first = WorkflowInstance.objects.order_by("id")[0]
    assert document("showworkflow", "a", "--execution-id", first.execution_id)["messages"] == []
    assert [message["name"] for message in document("showworkflow", "a")["messages"]] == ["go"]


def test_updates_are_shown() -> None:
    handle = wait.using(instance_id="a").start()
    update = WorkflowUpdate(update_id="f" * 32, chain_id=handle.describe().chain, name="add", input="[[1],{}]")
    update.status, update.result, update.answered_at = "completed", "2", timezone.now()
    update.save(force_insert=True)
    assert section(run("showworkflow", "a").out, "Updates")[1].split()[:2] == ["completed", "add"]
    [shown] = document("showworkflow", "a", "--payloads")["updates"]
    assert (shown["name"], shown["input"], shown["result"]) == ("add", {"args": [1], "kwargs": {}}, 2)


def test_the_number_of_executions_is_told() -> None:
    rounds.using(instance_id="the id").start(2)
    with running_worker():
        eventually(lambda: WorkflowInstance.objects.count() == 3)
    assert document("showworkflow", "the id")["executions"] == 3
    assert "`listworkflows --instance-id 'the id'`" in facts(run("showworkflow", "the id").out)["Executions"]
    first = WorkflowInstance.objects.order_by("id")[0]
    shown = document("showworkflow", "the id", "--execution-id", first.execution_id)
    assert (shown["status"], shown["input"]["args"]) == ("continued_as_new", [2])


def test_the_subject_is_named() -> None:
    group = Group.objects.create(name="staff")
    wait.using(instance_id="a", subject=group).start()
    assert facts(run("showworkflow", "a").out)["Subject"].strip() == f"auth.group:{group.pk}"


def test_a_queue_without_a_worker_is_told() -> None:
    wait.using(instance_id="a").start()
    assert facts(run("showworkflow", "a").out)["Held by"].strip() == "nobody: no live worker serves its queue"


def test_long_lists_are_cut_and_it_is_told() -> None:
    parent = wait.using(instance_id="a").start().describe()
    children = wait.start_many([()] * 101)
    ids = [child.instance_id for child in children]
    WorkflowInstance.objects.filter(instance_id__in=ids).update(parent_id=parent.pk)
    found = document("showworkflow", "a")
    assert (len(found["children"]), found["cut"]) == (100, ["children"])
    assert run("showworkflow", "a").out.endswith("Only the first hundred are shown of: children\n")


def test_what_cannot_be_read_is_shown_as_it_is() -> None:
    handle = wait.using(instance_id="a").start()
    handle.signal("go", 1)
    WorkflowInstance.objects.update(input="garbage", failure="{", status=InstanceStatus.BLOCKED)
    InboxEvent.objects.update(data="[")
    HistoryEvent.objects.create(
        instance_id=handle.describe().pk, sequence=1, type="Unheard", time=timezone.now() - timedelta(1), data="\x1b"
    )
    try:
        found = document("showworkflow", "a", "--history", "--payloads")
        assert (found["input"], found["failure"], found["history"][0]["data"]) == ("garbage", "{", "\x1b")
        output = run("showworkflow", "a", "--history", "--payloads").out
        assert section(output, "Input") == ["garbage"]
        assert section(output, "Blocked by") == ["{"]
    finally:
        WorkflowInstance.objects.update(status=InstanceStatus.RUNNING)
        HistoryEvent.objects.all().delete()


def test_an_unknown_instance_is_refused_with_what_to_do() -> None:
    error = refusal("showworkflow", "nobody")
    assert str(error) == ("no workflow instance has the instance_id 'nobody'; `listworkflows` shows which there are")
    assert error.returncode == 3


@pytest.mark.parametrize("instance_id", ["", "x" * 256, "a\0b", "\ud800"])
def test_an_impossible_id_is_refused(instance_id: str) -> None:
    error = refusal("showworkflow", instance_id)
    assert "instance_id" in str(error).lower()


def test_an_impossible_execution_id_is_refused() -> None:
    assert "32 hexadecimal digits" in str(refusal("showworkflow", "a", "--execution-id", "ü"))

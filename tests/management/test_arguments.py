"""Arguments: what is read, and that nothing that somebody types ends in a traceback."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_workflows import get_handle
from django_workflows.management.arguments import Json, count_up_to, duration, json_object, json_value, one_of, text_of
from django_workflows.management.command import ExitCode
from django_workflows.management.commands import runworkflowworker
from django_workflows.models import InboxEvent

from .calls import attempt, refusal
from .workflows import describe, wait

anything = st.text(st.characters(exclude_categories=()), max_size=50)
huge = st.sampled_from(["x" * 300, "9" * 5000, "[" * 100_000, '"' + "x" * 3_000_000 + '"', "1e999", "-" * 300])
odd = st.sampled_from(["\0", "\ud800", '"\\u0000"', '"\\ud800"', "NaN", "1" * 30, "{}", "-h"])
words = st.one_of(anything, huge, odd)
few = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * 86400), ("12h", 43200), ("90m", 5400), ("45s", 45), ("2w", 14 * 86400), ("1d12h", 129600),
     ("1.5h", 5400), ("0s", 0), (" 5m ", 300)],
)  # fmt: skip
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@few
@given(st.timedeltas(timedelta(0), timedelta(days=36000)))
def test_a_duration_is_read_back_from_what_call_command_makes_of_it(value: timedelta) -> None:
    assert duration(value) == duration(str(value)) == value


@few
@given(words)
def test_anything_else_is_no_duration(text: str) -> None:
    try:
        assert timedelta(0) <= duration(text) <= timedelta(days=36525)
    except ArgumentTypeError as error:
        assert len(str(error)) < 300


@pytest.mark.parametrize("text", ["30", "", "1y", "-1d", "d", "1e3s", "1d 2", "3653000d", "9" * 400 + "d"])
def test_what_has_no_unit_is_no_duration(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="a number with its unit"):
        duration(text)


json_data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)  # fmt: skip


@few
@given(json_data)
def test_json_is_read(value: Any) -> None:
    read = json_value(json.dumps(value))
    assert read == Json(value)
    assert json_value(read) is read  # handed on by call_command(), which may have read it before


def test_python_values_are_taken_for_json_where_call_command_has_them() -> None:
    assert json_value(17) == Json(17)
    assert json_object({"gift": True}) == {"gift": True}


@few
@given(words)
def test_anything_else_is_no_json(text: str) -> None:
    for read in (json_value, json_object):
        try:
            read(text)
        except ArgumentTypeError as error:
            assert len(str(error)) < 600


@few
@given(words)
def test_other_types_refuse_or_take(text: str) -> None:
    for read in (text_of(200), one_of(["running"]), count_up_to(10)):
        try:
            read(text)
        except ArgumentTypeError as error:
            assert len(str(error)) < 300


COMMANDS = [
    ["startworkflow", "--", describe.name, "*"],
    ["startworkflow", "--kwargs=*", "--", describe.name],
    ["startworkflow", "--instance-id=*", "--queue=*", "--on-conflict=*", "--", "*", "1"],
    ["listworkflows", "--status=*"],
    ["listworkflows", "--name=*", "--queue=*"],
    ["listworkflows", "--instance-id=*"],
    ["listworkflows", "--instance-id-prefix=*", "--limit=*"],
    ["listworkflows", "--older-than=*", "--newer-than=*"],
    ["showworkflow", "--history", "--payloads", "--", "*"],
    ["showworkflow", "--execution-id=*", "--", "known"],
    ["signalworkflow", "--", "*", "*", "*"],
    ["signalworkflow", "--", "known", "*", "*"],
    ["queryworkflow", "--", "*", "*", "*"],
    ["queryworkflow", "--kwargs=*", "--", "known", "*"],
    ["updateworkflow", "--timeout=0s", "--", "*", "*", "*"],
    ["updateworkflow", "--kwargs=*", "--timeout=0s", "--", "known", "*"],
    ["workflowpatches", "--name=*"],
    ["cancelworkflow", "--reason=*", "--", "known"],
    ["terminateworkflow", "--reason=*", "--noinput", "--", "other"],
    ["workflowresult", "--timeout=*", "--", "closed"],
    ["removeworkflow", "--noinput", "--", "*"],
    ["pruneworkflows", "--older-than=*", "--noinput"],
    ["pruneworkflows", "--older-than=100w", "--status=*", "--batch-size=*", "--dry-run"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_that_is_typed_ends_in_a_traceback(transactional_db: None, command: list[str], data: Any) -> None:
    """Errors are CommandErrors that can be printed, and what is stored can be shown."""
    for instance_id in ("known", "other", "closed"):
        wait.using(instance_id=instance_id, on_conflict="use_existing").start()
    get_handle("closed").terminate()
    arguments = [argument.replace("*", data.draw(words), 1) for argument in command[1:]]

    output = attempt(command[0], *arguments)
    if output.error is not None:
        assert output.error.returncode in list(ExitCode)
        assert len(str(output.error)) < 2000
    assert attempt("listworkflows", "--limit", "3").error is None
    assert attempt("showworkflow", "known", "--history", "--payloads").error is None


@pytest.mark.parametrize("option", ["--queue", "--threads", "--processes", "--grace"])
@few
@given(text=words | st.sampled_from(["nan", "inf", "1e300", "-1", "0"]))
def test_whatever_a_worker_is_told_is_read_or_refused_in_a_line(option: str, text: str) -> None:
    parser = runworkflowworker.Command().create_parser("manage.py", "runworkflowworker")
    try:
        parser.parse_args([f"{option}={text}"])
    except CommandError as error:
        assert len(str(error)) < 300 and "expected" in str(error)


def test_callers_of_call_command_are_read_as_strictly(transactional_db: None) -> None:
    wait.using(instance_id="a").start()
    calls: list[tuple[list[str], dict[str, Any]]] = [
        (["listworkflows"], {"statuses": ["bogus"]}),
        (["listworkflows"], {"limit": "many"}),
        (["listworkflows"], {"older_than": 5}),
        (["showworkflow", "a"], {"execution_id": "\ud800"}),
        (["cancelworkflow", "a"], {"reason": "a\0b"}),
        (["workflowresult", "a"], {"timeout": 10}),
    ]
    for arguments, options in calls:
        assert refusal(*arguments, **options).returncode == ExitCode.USAGE, (arguments, options)
    assert not InboxEvent.objects.filter(type="CancelRequested").exists()

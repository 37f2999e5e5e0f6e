"""Long histories: the suggestion to continue as new, and the length at which an execution fails."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from django_workflows import HistoryLimitExceeded, RetryPolicy, workflow
from django_workflows.authoring.program import entry_of
from django_workflows.engine import events as ev
from django_workflows.engine.machine import Machine
from django_workflows.engine.steps import InstanceInfo
from django_workflows.failures import dotted_name
from django_workflows.registry import WorkflowDefinition

from .activities import echo
from .harness import START, completed


async def suggestions() -> list[list[Any]]:
    found = []
    for number in range(3):
        await echo(number)
        info = workflow.info()
        found.append([info.history_length, info.continue_as_new_suggested])
    return found


async def for_ever() -> None:
    while True:
        await echo()


def machine_of(main: Any, limit: int = 0, options: ev.InstanceOptions | None = None) -> Machine:
    definition = WorkflowDefinition(main, "tests.main")
    info = InstanceInfo(
        instance_id="instance-1", execution_id="execution-1", workflow="tests.main", queue="default", started_at=START
    )
    return Machine(info, entry_of(definition, b"[[],{}]"), history_limit=limit, options=options)


def test_continue_as_new_is_suggested_from_the_length_that_the_start_says() -> None:
    events = [ev.InstanceStarted(suggest_at=4), completed(1), completed(2), completed(3)]
    step = machine_of(suggestions).step(events, START)
    assert isinstance(step.closing, ev.InstanceCompleted)
    assert msgspec.json.decode(step.closing.result) == [[3, False], [5, True], [7, True]]


def test_the_suggestion_is_the_same_on_replay_whatever_the_setting_says_now() -> None:
    events: list[ev.InputEvent] = [ev.InstanceStarted(suggest_at=4), completed(1)]
    live = machine_of(suggestions)
    history = [(START, event) for event in live.step(events, START).events]
    cold = machine_of(suggestions)
    cold.replay(history)
    rest = [completed(2), completed(3)]
    assert cold.step(rest, START).events == live.step(rest, START).events


def test_without_a_length_in_the_start_nothing_is_suggested() -> None:
    step = machine_of(suggestions).step([ev.InstanceStarted(), completed(1), completed(2), completed(3)], START)
    assert isinstance(step.closing, ev.InstanceCompleted)
    assert [entry[1] for entry in msgspec.json.decode(step.closing.result)] == [False, False, False]


def test_an_execution_that_is_too_long_is_not_retried() -> None:
    options = ev.InstanceOptions(retry=RetryPolicy().to_json())
    step = machine_of(for_ever, limit=4, options=options).step([ev.InstanceStarted(), completed(1)], START)
    assert isinstance(step.closing, ev.InstanceFailed)
    assert step.closing.next_execution_id == ""


def test_an_execution_fails_when_its_history_reaches_the_limit() -> None:
    machine = machine_of(for_ever, limit=6)
    step = machine.step([ev.InstanceStarted(), completed(1), completed(2), completed(3)], START)
    assert isinstance(step.closing, ev.InstanceFailed)
    assert step.closing.failure.type == dotted_name(HistoryLimitExceeded)
    assert "HISTORY_LIMIT is 6" in step.closing.failure.message
    assert (step.consumed, len(step.events)) == (3, 7)
    assert [event.command for event in machine.open_commands()] == [3]


def test_a_history_that_ended_at_the_limit_replays_under_any_limit() -> None:
    step = machine_of(for_ever, limit=6).step([ev.InstanceStarted(), completed(1), completed(2)], START)
    history = [(START, event) for event in step.events]
    for limit in (0, 3, 6, 100):
        machine = machine_of(for_ever, limit=limit)
        machine.replay(history)
        assert machine.history_length == len(history)


def test_an_execution_that_closes_at_the_limit_closes_as_its_code_says() -> None:
    async def main() -> str:
        await echo()
        return "done"

    step = machine_of(main, limit=3).step([ev.InstanceStarted(), completed(1)], START + timedelta(seconds=1))
    assert isinstance(step.closing, ev.InstanceCompleted)

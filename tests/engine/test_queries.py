"""Queries: answered from a replay of the history, by handlers that only read."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from django_workflows import NotAllowedInWorkflowError, PayloadError, UnknownHandlerError, WorkflowClass, workflow
from django_workflows.engine import events as ev

from .activities import echo
from .harness import START, Run, assert_replays
from .test_updates import _activity, _again, _attributes, _patch, _random, _side_effect, _task, _timer, _uuid

effects: list[int] = []


@workflow
class Counter(WorkflowClass):
    def __init__(self, first: int) -> None:
        self.number = first
        self.seen: list[str] = []
        workflow.side_effect(lambda: effects.append(1))

    @workflow.signal
    def add(self, number: int) -> None:
        workflow.logger.warning("adding %s", number)
        self.number += number

    @workflow.query
    def value(self, plus: int = 0) -> int:
        return self.number + plus

    @workflow.query
    def changed_at(self) -> datetime:
        return workflow.now()

    @workflow.query(name="seen so far")
    def seen_so_far(self) -> list[str]:
        """Change what it should not."""
        self.seen.append("a query")
        return self.seen

    @workflow.query
    def broken(self) -> None:
        raise LookupError("no such counter")

    async def run(self, first: int) -> int:
        await workflow.wait_condition(lambda: self.number > 9)
        await echo(self.number)
        return self.number


def test_it_sees_the_state_after_the_last_step() -> None:
    ran = Run(Counter, 3)
    assert ran.query("value") == 3
    ran.signal("add", 4)
    assert (ran.query("value"), ran.query("value", 10)) == (7, 17)


def test_it_answers_when_the_instance_is_closed() -> None:
    ran = Run(Counter, 3)
    ran.signal("add", 7)
    ran.finish()
    assert ran.result == 10
    assert ran.query("value") == 10
    assert_replays(ran)


@pytest.mark.parametrize("end", [ev.CancelRequested(), ev.TerminateRequested()])
def test_it_answers_when_the_instance_was_ended_from_outside(end: ev.InputEvent) -> None:
    ran = Run(Counter, 3)
    ran.signal("add", 1)
    ran.send(end)
    assert ran.closing is not None
    assert ran.query("value") == 4


def test_it_answers_from_the_first_state_before_the_instance_has_begun() -> None:
    effects.clear()
    ran = Run(Counter, 3, start=False)
    assert ran.query("value") == 3
    assert datetime.fromisoformat(ran.query("changed_at")) == START
    assert effects == [], "nothing of it has happened yet"


def test_an_instance_whose_init_fails_answers_nothing() -> None:
    class Broken(WorkflowClass):
        def __init__(self) -> None:
            raise LookupError("no such shop")

        @workflow.query
        def value(self) -> int:
            return 3

        async def run(self) -> None: ...

    cls = workflow(Broken)
    for ran in (Run(cls), Run(cls, start=False)):
        with pytest.raises(UnknownHandlerError, match="its __init__ has failed"):
            ran.query("value")


def test_now_is_the_time_of_the_last_step() -> None:
    ran = Run(Counter, 3)
    ran.advance(60)
    assert datetime.fromisoformat(ran.query("changed_at")) == START
    ran.signal("add", 1)
    assert datetime.fromisoformat(ran.query("changed_at")) == ran.now


def test_what_it_changes_is_gone_with_its_replay() -> None:
    ran = Run(Counter, 3)
    assert ran.query("seen so far") == ["a query"]
    assert ran.query("seen so far") == ["a query"]


def test_its_replay_logs_nothing_and_runs_no_side_effect(caplog: pytest.LogCaptureFixture) -> None:
    effects.clear()
    ran = Run(Counter, 3)
    ran.signal("add", 1)
    ran.query("value")
    assert effects == [1]
    assert [record.message for record in caplog.records] == ["adding 1"]


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(LookupError, match="no such counter"):
        Run(Counter, 3).query("broken")


def test_unknown_names_are_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        UnknownHandlerError, match=r"query 'valeu' in .*Counter, found broken, changed_at, seen so far, value"
    ):
        Run(Counter, 3).query("valeu")


def test_a_function_answers_none() -> None:
    async def main() -> None: ...

    with pytest.raises(UnknownHandlerError, match="it is a function"):
        Run(main).query("value")


@pytest.mark.parametrize("args", [("x",), (1, 2)])
def test_arguments_that_do_not_fit_are_refused(args: tuple[Any, ...]) -> None:
    with pytest.raises(PayloadError):
        Run(Counter, 3).query("value", *args)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize(
    "decide", [_activity, _task, _timer, _attributes, _side_effect, _random, _uuid, _patch, _again]
)
def test_a_query_that_decides_something_is_refused(decide: Any, closed: bool) -> None:
    async def run(self: Any) -> None:
        if not closed:
            await asyncio.sleep(60)

    name = f"Deciding{decide.__name__}{closed}"
    ran = Run(workflow(type(name, (), {"decide": workflow.query(decide), "run": run})))
    with pytest.raises(NotAllowedInWorkflowError, match="expected a query to read only"):
        ran.query(decide.__name__)

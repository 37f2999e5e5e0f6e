"""Code that was changed under a running instance: told with event number, both decisions and source line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from django_workflows import NondeterminismError, Signal, workflow
from django_workflows.engine import events as ev

from .activities import charge, clean_up, decline, double, echo
from .harness import Run, completed, new_machine, replayed
from .test_activities import child

go: Signal[None] = Signal("go")

Main = Callable[[], Coroutine[Any, Any, Any]]


@workflow
async def other_child(number: int) -> int:
    return number


async def swapped_before() -> None:
    await echo()
    await echo()


async def swapped() -> None:
    await echo()
    await charge(1)


async def one_activity() -> None:
    await echo()
    await go.receive()


async def two_activities() -> None:
    await asyncio.gather(echo(), double(1))
    await go.receive()


async def two_in_the_other_order() -> None:
    await asyncio.gather(double(1), echo())
    await go.receive()


async def a_timer() -> None:
    await asyncio.sleep(60)
    await go.receive()


async def a_child() -> None:
    await child(1)
    await go.receive()


async def another_child() -> None:
    await other_child(1)
    await go.receive()


async def a_side_effect() -> None:
    workflow.side_effect(lambda: 1)
    await echo()
    await go.receive()


async def nothing() -> None:
    await go.receive()


async def ends_at_once() -> None:
    pass


async def fails() -> None:
    raise ValueError("new bug")


async def bounded() -> None:
    async with asyncio.timeout(60):
        await echo()
    await go.receive()


async def one_then_two() -> None:
    await echo()
    await double(1)
    await go.receive()


CASES: list[tuple[str, Main, Main, int, str, str]] = [
    ("swapped", swapped_before, swapped, 4, "ActivityScheduled 'engine.echo'", "ActivityScheduled 'engine.charge'"),
    ("added", one_activity, one_then_two, 4, "no further decision here", "ActivityScheduled 'engine.double'"),
    ("removed", one_then_two, one_activity, 4, "ActivityScheduled 'engine.double'", "nothing"),
    ("added in parallel", one_activity, two_activities, 3, "no further decision", "ActivityScheduled 'engine.double'"),
    ("removed in parallel", two_activities, one_activity, 3, "ActivityScheduled 'engine.double'", "nothing"),
    ("other order", two_activities, two_in_the_other_order, 2, "Scheduled 'engine.echo'", "Scheduled 'engine.double'"),
    ("activity to timer", one_activity, a_timer, 2, "ActivityScheduled 'engine.echo'", "TimerStarted"),
    ("timer to activity", a_timer, one_activity, 2, "TimerStarted", "ActivityScheduled 'engine.echo'"),
    ("activity to child", one_activity, a_child, 2, "ActivityScheduled 'engine.echo'", "ChildScheduled 'engine.child'"),
    ("child renamed", a_child, another_child, 2, "ChildScheduled 'engine.child'", "Scheduled 'engine.other_child'"),
    ("side effect added", one_activity, a_side_effect, 2, "ActivityScheduled 'engine.echo'", "SideEffectRecorded"),
    ("side effect removed", a_side_effect, one_activity, 2, "SideEffectRecorded", "ActivityScheduled 'engine.echo'"),
    ("timeout added", one_activity, bounded, 2, "ActivityScheduled 'engine.echo'", "TimerStarted"),
    ("timeout removed", bounded, one_activity, 2, "TimerStarted", "ActivityScheduled 'engine.echo'"),
    ("all removed", one_activity, nothing, 2, "ActivityScheduled 'engine.echo'", "nothing"),
    ("ends earlier", one_activity, ends_at_once, 2, "ActivityScheduled 'engine.echo'", "InstanceCompleted"),
    ("goes on", ends_at_once, one_activity, 2, "InstanceCompleted", "ActivityScheduled 'engine.echo'"),
    (
        "fails",
        one_activity,
        fails,
        2,
        "ActivityScheduled 'engine.echo'",
        "InstanceFailed with builtins.ValueError: new",
    ),
]


@pytest.mark.parametrize(
    ("before", "after", "number", "expected", "actual"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_message_names_event_both_decisions_and_source_line(
    before: Main, after: Main, number: int, expected: str, actual: str
) -> None:
    ran = Run(before).finish()
    with pytest.raises(NondeterminismError) as caught:
        replayed(after, (), ran.history)
    told = str(caught.value)
    assert told.startswith(f"event {number} of tests.main instance 'instance-1': the history holds ")
    holds, _, decided = told.partition(", but the code decided ")
    assert expected in holds
    assert actual in decided
    assert f"{__file__}:{line_of(after, decided)}. " in decided
    assert "Put the old code back" in decided
    # The old code replays afterwards.
    replayed(before, (), ran.history).dispose()


def line_of(function: Main, told: str) -> int:
    """Return the line that the message names, having checked that it lies inside the function."""
    line = int(told.partition(f"{__file__}:")[2].partition(".")[0])
    first = function.__code__.co_firstlineno
    last = max(line for _, _, line in function.__code__.co_lines() if line)
    assert first <= line <= last
    return line


def test_the_line_is_that_of_the_call_even_if_gather_makes_the_task() -> None:
    ran = Run(one_activity)
    with pytest.raises(NondeterminismError) as caught:
        replayed(two_in_the_other_order, (), ran.history)
    assert f":{two_in_the_other_order.__code__.co_firstlineno + 1}. " in str(caught.value)


def test_where_the_code_decides_nothing_the_line_is_that_of_its_await() -> None:
    ran = Run(one_activity)
    with pytest.raises(NondeterminismError) as caught:
        replayed(nothing, (), ran.history)
    assert f"nothing at {__file__}:{nothing.__code__.co_firstlineno + 1}. " in str(caught.value)


def test_an_outcome_that_the_code_does_not_wait_for() -> None:
    async def cancels_it() -> None:
        task = asyncio.create_task(echo())
        await go.receive()
        task.cancel()

    ran = Run(one_activity)
    history = [*ran.history, (ran.now, ev.ActivityCompleted(9))]
    with pytest.raises(NondeterminismError, match=r"event 3 .* ActivityCompleted of command 9, .* not waiting for it"):
        replayed(cancels_it, (), history)


@pytest.mark.parametrize(
    "change", [lambda: echo("other arguments"), lambda: echo.using(queue="other")(), lambda: echo.using(queue="x")(1)]
)
def test_arguments_and_options_may_change(change: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async def after() -> None:
        await change()
        await go.receive()

    ran = Run(one_activity).finish()
    replayed(after, (), ran.history).dispose()


def test_a_delay_may_change() -> None:
    async def after() -> None:
        await asyncio.sleep(3600)
        await go.receive()

    replayed(after, (), Run(a_timer).finish().history).dispose()


def test_a_mismatch_leaves_nothing_of_the_machine_running(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned: list[str] = []

    async def after() -> None:
        try:
            await double(1)
        finally:
            cleaned.append("up")
            await clean_up()

    ran = Run(one_activity)
    machine = new_machine(after)
    with pytest.raises(NondeterminismError):
        machine.replay(ran.history)
    assert machine.step([completed(1)], ran.now).events == []
    assert capsys.readouterr().err == ""
    assert cleaned == ["up"]


def test_a_failing_activity_that_is_handled_differently() -> None:
    async def before() -> None:
        try:
            await decline()
        except Exception:
            await clean_up()

    async def after() -> None:
        await decline()

    ran = Run(before).finish()
    with pytest.raises(NondeterminismError, match=r"InstanceFailed with tests\.engine\.activities\.CardDeclined: no"):
        replayed(after, (), ran.history)

"""Patches: a change of code that old executions do not see, and the three deployments that bring it in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from django_workflows import NondeterminismError, NotInWorkflowError, workflow
from django_workflows.engine import events as ev

from .activities import clean_up, echo
from .harness import Run, assert_replays, replayed, run

Code = Callable[[], Coroutine[Any, Any, Any]]


async def before() -> Any:
    first = await echo("old")
    return [first, await echo("end")]


async def patched() -> Any:
    first = await echo("new") if workflow.patched("swap") else await echo("old")
    return [first, await echo("end")]


async def patched_with_another_activity() -> Any:
    if workflow.patched("swap"):
        await clean_up("more")
    first = await echo("old")
    return [first, await echo("end")]


async def deprecated() -> Any:
    workflow.deprecate_patch("swap")
    first = await echo("new")
    return [first, await echo("end")]


async def after() -> Any:
    first = await echo("new")
    return [first, await echo("end")]


def patches(ran: Run) -> list[tuple[str, bool]]:
    return [(event.patch, event.deprecated) for event in ran.events if isinstance(event, ev.PatchRecorded)]


def test_a_new_execution_takes_the_new_path_and_records_it_once() -> None:
    ran = run(patched)
    assert ran.result == ["new", "end"]
    assert patches(ran) == [("swap", False)]


def test_an_execution_from_before_keeps_the_old_path() -> None:
    old = Run(before)
    machine = replayed(patched, (), old.history)
    assert not machine.patched("swap")


def test_the_history_of_an_old_execution_replays_in_the_patched_code_where_the_paths_differ() -> None:
    old = run(before)
    replayed(patched_with_another_activity, (), old.history)
    with pytest.raises(NondeterminismError):
        replayed(unpatched_with_another_activity, (), old.history)


async def unpatched_with_another_activity() -> Any:
    await clean_up("more")
    return await before()


@pytest.mark.parametrize(
    ("ran_by", "replayed_by"),
    [
        (before, patched),
        (patched, patched),
        (patched, deprecated),
        (deprecated, deprecated),
        (deprecated, after),
        (patched, after),
    ],
)
def test_each_of_the_three_deployments_replays_what_the_one_before_left(ran_by: Code, replayed_by: Code) -> None:
    ran = run(ran_by)
    machine = replayed(replayed_by, (), ran.history)
    assert machine.history_length == len(ran.history)


def test_the_answer_stays_false_for_an_execution_that_was_told_so_once() -> None:
    async def loop_before() -> int:
        for number in range(4):
            await echo(number)
        return 0

    async def loop_after() -> int:
        found = 0
        for number in range(4):
            found += workflow.patched("late")
            await echo(number)
        return found

    old = Run(loop_before)
    old.complete(1)
    machine = replayed(loop_after, (), old.history)
    step = machine.step([ev.ActivityCompleted(2), ev.ActivityCompleted(3), ev.ActivityCompleted(4)], old.now)
    assert isinstance(step.events[-1], ev.InstanceCompleted)
    assert bytes(step.events[-1].result) == b"0"


def test_a_patch_that_is_met_for_the_first_time_behind_the_replayed_history_is_new() -> None:
    async def longer() -> list[Any]:
        first = await echo("old")
        return [first, await (echo("new end") if workflow.patched("end") else echo("end"))]

    old = Run(before)
    machine = replayed(longer, (), old.history)
    step = machine.step([ev.ActivityCompleted(1)], old.now)
    assert [event.type for event in step.events] == ["ActivityCompleted", "PatchRecorded", "ActivityScheduled"]


def test_patches_in_tasks_replay_cut_anywhere() -> None:
    async def main() -> list[bool]:
        async def one(name: str) -> bool:
            await asyncio.sleep(len(name))
            return workflow.patched(name)

        return [*await asyncio.gather(one("aaa"), one("b"), one("b")), workflow.patched("aaa")]

    ran = run(main)
    assert ran.result == [True, True, True, True]
    assert patches(ran) == [("b", False), ("aaa", False)]


def test_the_length_of_the_history_counts_patches_on_replay_too() -> None:
    async def main() -> int:
        workflow.patched("one")
        workflow.patched("two")
        await echo()
        return workflow.info().history_length

    ran = Run(main).finish()
    assert_replays(ran)
    assert ran.result == 5


def test_asking_outside_a_workflow_names_the_mistake() -> None:
    with pytest.raises(NotInWorkflowError, match=r"workflow\.patched"):
        workflow.patched("swap")

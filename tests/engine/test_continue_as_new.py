"""Continue as new: the execution ends, wherever it is asked for, and its unread signals go on."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from django_workflows import Signal, workflow
from django_workflows.engine import events as ev

from .activities import clean_up, echo
from .harness import Run, assert_replays, forever, signal

number = Signal("number", int)


async def _in_main(next_round: int) -> None:
    workflow.continue_as_new(next_round)


async def _in_a_background_task(next_round: int) -> None:
    async def background() -> None:
        await asyncio.sleep(0)
        workflow.continue_as_new(next_round)

    task = asyncio.create_task(background())
    await forever()
    assert task


async def _in_a_dropped_task(next_round: int) -> None:
    async def background() -> None:
        workflow.continue_as_new(next_round)

    asyncio.create_task(background())  # noqa: RUF006
    await forever()


async def _in_a_child_of_a_task_group(next_round: int) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_in_main(next_round))
        group.create_task(forever())


async def _in_the_body_of_a_task_group(next_round: int) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(forever())
        await asyncio.sleep(0)
        workflow.continue_as_new(next_round)


async def _in_nested_task_groups(next_round: int) -> None:
    async with asyncio.TaskGroup(), asyncio.TaskGroup():
        workflow.continue_as_new(next_round)


async def _in_gather(next_round: int) -> None:
    await asyncio.gather(forever(), _in_main(next_round))


async def _within_a_timeout(next_round: int) -> None:
    async with asyncio.timeout(60):
        await _in_main(next_round)


async def _through_except_exception(next_round: int) -> None:
    try:
        workflow.continue_as_new(next_round)
    except Exception:
        await echo("caught")


PLACES = {
    place.__name__.strip("_"): place
    for place in (
        _in_main, _in_a_background_task, _in_a_dropped_task, _in_a_child_of_a_task_group,
        _in_the_body_of_a_task_group, _in_nested_task_groups, _in_gather, _within_a_timeout,
        _through_except_exception,
    )
}  # fmt: skip


@workflow
async def rounds(number: int = 0) -> int:
    await echo(number)
    if number < 3:
        workflow.continue_as_new(number + 1)
    return number


@workflow
async def anywhere(place: object = None) -> None:
    await PLACES[str(place)](7)


@pytest.mark.parametrize("place", PLACES)
def test_it_works_everywhere(place: str) -> None:
    ran = Run(anywhere, place)
    closing = ran.closing
    assert isinstance(closing, ev.InstanceContinuedAsNew)
    assert msgspec.json.decode(closing.input) == [[7], {}]
    assert len(closing.execution_id) == 32
    assert_replays(ran)


def test_other_arguments_another_execution_a_fresh_history() -> None:
    ran = Run(rounds).finish()
    closing = ran.closing
    assert isinstance(closing, ev.InstanceContinuedAsNew)
    assert_replays(ran)
    assert Run(rounds, 3).finish().result == 3


def test_wrong_arguments_fail_the_instance() -> None:
    @workflow(name="tests.wrong")
    async def wrong(number: int) -> None:
        workflow.continue_as_new(1, 2)

    assert Run(wrong, 1).failure.type == "builtins.TypeError"


def test_unread_signals_are_carried_over_in_order() -> None:
    @workflow(name="tests.carries")
    async def carries() -> None:
        await number.receive()
        workflow.continue_as_new()

    ran = Run(carries)
    first = ran.send(signal("number", 1), signal("number", 2))
    assert first.consumed == 1  # the second comes after the close: the next execution gets it from the inbox
    ran = Run(carries, start=False)
    ran.send(ev.SignalReceived("other"), ev.SignalReceived("other"))
    ran.send(
        ev.InstanceStarted(signals=[ev.CarriedSignal("number", signal("number", value).value) for value in (1, 2)])
    )
    closing = ran.closing
    assert isinstance(closing, ev.InstanceContinuedAsNew)
    carried = [(one.name, msgspec.json.decode(one.value)) for one in closing.signals]
    assert carried == [("other", None), ("other", None), ("number", 2)]
    assert_replays(ran)


def test_clean_up_in_finally_runs_first() -> None:
    @workflow(name="tests.cleans_up")
    async def cleans_up() -> None:
        try:
            workflow.continue_as_new()
        finally:
            await clean_up()

    ran = Run(cleans_up).finish()
    assert ran.types == [
        "InstanceStarted", "ActivityScheduled", "ActivityCompleted", "InstanceContinuedAsNew",
    ]  # fmt: skip
    assert_replays(ran)


def test_the_other_tasks_decide_nothing_more() -> None:
    @workflow(name="tests.stops")
    async def stops() -> None:
        async def worker() -> None:
            try:
                await forever()
            finally:
                await clean_up()

        async with asyncio.TaskGroup() as group:
            group.create_task(worker())
            await asyncio.sleep(0)
            group.create_task(_in_main_of_stops())

    async def _in_main_of_stops() -> None:
        workflow.continue_as_new()

    ran = Run(stops)
    assert ran.types == ["InstanceStarted", "InstanceContinuedAsNew"]
    assert_replays(ran)
    ran.machine.dispose()


def test_another_failure_beside_it_fails_the_instance() -> None:
    @workflow(name="tests.both")
    async def both() -> None:
        async def broken() -> None:
            try:
                await forever()
            finally:
                raise ValueError("beside")

        async with asyncio.TaskGroup() as group:
            group.create_task(broken())
            await asyncio.sleep(0)
            workflow.continue_as_new()

    ran = Run(both)
    assert "beside" in [member.message for member in ran.failure.members]
    assert_replays(ran)

"""Cancellation is asyncio's: once, at the current await; clean-up may await more work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from django_workflows import Signal, workflow
from django_workflows.engine import events as ev

from .activities import clean_up, echo
from .harness import Run, assert_replays, completed

go: Signal[None] = Signal("go")


@pytest.mark.parametrize(
    ("wait", "cancelled_as"),
    [
        (lambda: asyncio.sleep(60), ["TimerCancelled"]),
        (lambda: workflow.sleep(60), ["TimerCancelled"]),
        (lambda: echo(), ["ActivityCancelled"]),
        (lambda: go.receive(), []),
        (lambda: workflow.wait_condition(lambda: False), []),
        (lambda: workflow.wait_condition(lambda: False, timeout=60), ["TimerCancelled"]),
        (lambda: asyncio.gather(echo(), asyncio.sleep(60)), ["ActivityCancelled", "TimerCancelled"]),
        (lambda: asyncio.wait_for(echo(), 60), None),
    ],
)
def test_it_arrives_at_the_current_await(wait: Callable[[], Awaitable[object]], cancelled_as: list[str] | None) -> None:
    async def main() -> None:
        await wait()

    ran = Run(main)
    step = ran.cancel()
    types = [event.type for event in step.events]
    assert (types[0], types[-1]) == ("CancelRequested", "InstanceCancelled")
    if cancelled_as is None:
        assert sorted(types[1:-1]) == ["ActivityCancelled", "TimerCancelled"]
    else:
        assert types[1:-1] == cancelled_as
    assert ran.open() == []
    assert_replays(ran)


def test_its_reason_is_the_message() -> None:
    async def main() -> str:
        try:
            await go.receive()
        except asyncio.CancelledError as error:
            return str(error)
        return ""

    ran = Run(main)
    ran.cancel("customer left")
    assert ran.result == "customer left"
    assert_replays(ran)


def test_clean_up_activities_run_in_except_and_finally() -> None:
    async def main() -> None:
        try:
            try:
                await echo()
            except asyncio.CancelledError:
                await clean_up("except")
                raise
        finally:
            await clean_up("finally")

    ran = Run(main)
    ran.cancel()
    assert ran.closing is None
    ran.finish()
    assert ran.types[-1] == "InstanceCancelled"
    assert ran.scheduled() == [("echo", []), ("clean_up", ["except"]), ("clean_up", ["finally"])]
    assert_replays(ran)


def test_swallowed_and_returned_the_instance_is_completed() -> None:
    async def main() -> str:
        try:
            await echo()
        except asyncio.CancelledError:
            return "never mind"
        return "done"

    ran = Run(main)
    ran.cancel()
    assert ran.result == "never mind"
    assert_replays(ran)


def test_another_exception_in_clean_up_fails_the_instance() -> None:
    async def main() -> None:
        try:
            await echo()
        finally:
            raise ValueError("clean-up went wrong")

    ran = Run(main)
    ran.cancel()
    assert ran.failure.message == "clean-up went wrong"
    assert_replays(ran)


def test_a_shielded_activity_is_awaited_after_the_cancellation() -> None:
    async def main() -> str:
        task = asyncio.create_task(echo("kept"))
        try:
            return str(await asyncio.shield(task))
        except asyncio.CancelledError:
            return f"late {await task}"

    ran = Run(main)
    ran.cancel()
    ran.finish()
    assert ran.result == "late kept"
    assert "ActivityCancelled" not in ran.types
    assert_replays(ran)


def test_a_shielded_activity_that_nobody_awaits_any_more_is_cancelled_with_the_rest() -> None:
    async def main() -> None:
        await asyncio.shield(echo())

    ran = Run(main)
    ran.cancel()
    assert ran.types[-2:] == ["ActivityCancelled", "InstanceCancelled"]
    assert_replays(ran)


@pytest.mark.parametrize(
    ("inputs", "ending"),
    [
        ([ev.CancelRequested(), completed(1, "x")], "InstanceCancelled"),
        ([completed(1, "x"), ev.CancelRequested()], "InstanceCompleted"),
    ],
)
def test_with_a_completion_in_one_batch_the_first_wins(inputs: list[ev.InputEvent], ending: str) -> None:
    async def main() -> object:
        return await echo()

    ran = Run(main)
    ran.send(*inputs)
    assert ran.types[-1] == ending
    assert_replays(ran)


def test_after_a_completion_in_one_batch_it_arrives_at_the_next_await() -> None:
    async def main() -> object:
        first = await echo("first")
        try:
            await echo("second")
        except asyncio.CancelledError:
            return first
        return "not cancelled"

    ran = Run(main)
    ran.send(completed(1, "first"), ev.CancelRequested())
    assert ran.result == "first"
    assert ran.types.count("ActivityScheduled") == 2
    assert_replays(ran)


def test_requested_again_it_changes_nothing() -> None:
    async def main() -> None:
        try:
            await echo()
        finally:
            await clean_up()

    ran = Run(main)
    ran.cancel("first")
    step = ran.cancel("second")
    assert (step.events, step.consumed) == ([], 1)
    ran.complete(2)
    assert ran.types.count("CancelRequested") == 1
    assert ran.types[-1] == "InstanceCancelled"
    assert_replays(ran)


def test_before_the_start_it_is_kept() -> None:
    async def main() -> None:
        await echo()

    ran = Run(main, start=False)
    ran.send(ev.CancelRequested(), ev.InstanceStarted())
    assert ran.types == ["CancelRequested", "InstanceStarted", "InstanceCancelled"]
    assert_replays(ran)


def test_a_task_of_ones_own_is_cancelled_alone() -> None:
    async def main() -> str:
        task = asyncio.create_task(echo())
        await echo("other")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "finished"

    ran = Run(main)
    ran.complete(1, "other")
    assert ran.result == "cancelled"
    assert ran.types[-2:] == ["ActivityCancelled", "InstanceCompleted"]
    assert_replays(ran)


def test_without_a_request_it_is_a_failure_that_shows_where() -> None:
    async def main() -> None:
        task = asyncio.create_task(go.receive())
        await asyncio.sleep(0)
        task.cancel()
        await task

    ran = Run(main)
    assert ran.failure.type == "asyncio.exceptions.CancelledError"
    assert "await task" in ran.failure.format()
    assert_replays(ran)


def test_it_ends_the_wait_for_what_a_returned_workflow_has_started() -> None:
    async def main() -> str:
        asyncio.create_task(echo())  # noqa: RUF006
        await asyncio.sleep(0)
        return "returned"

    ran = Run(main)
    assert ran.closing is None
    ran.cancel()
    assert ran.types[-2:] == ["ActivityCancelled", "InstanceCancelled"]
    assert_replays(ran)


def test_siblings_in_a_task_group_clean_up_before_the_close() -> None:
    async def worker(name: str) -> None:
        try:
            await echo(name)
        finally:
            await clean_up(name)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(worker("a"))
            group.create_task(worker("b"))

    ran = Run(main)
    ran.cancel()
    ran.finish()
    assert ran.types[-1] == "InstanceCancelled"
    assert ran.scheduled()[2:] == [("clean_up", ["a"]), ("clean_up", ["b"])]
    assert_replays(ran)


@pytest.mark.parametrize("cancelled", [True, False])
def test_tasks_that_wait_for_each_other_in_a_circle_are_a_failure_not_a_hang(cancelled: bool) -> None:
    async def main() -> None:
        tasks: list[asyncio.Task[object]] = []

        async def wait_for(number: int) -> object:
            await asyncio.sleep(0)
            return await tasks[number]

        tasks += [asyncio.create_task(wait_for(1)), asyncio.create_task(wait_for(0))]
        await (asyncio.gather(*tasks) if cancelled else echo())

    ran = Run(main)
    if cancelled:
        ran.cancel()
    else:
        ran.complete(1)
    assert "in a circle" in ran.failure.message
    assert_replays(ran)
    ran.machine.dispose()

"""The end of the main function: what was started is awaited, other tasks are cancelled, their clean-up is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from django_workflows import Signal, workflow
from django_workflows.engine import events as ev

from .activities import clean_up, echo
from .harness import Run, assert_replays, forever, run, signal

go: Signal[int] = Signal("go", int)


def test_started_but_unawaited_activities_are_waited_for() -> None:
    async def main() -> str:
        tasks = [asyncio.create_task(echo(number)) for number in range(3)]
        await asyncio.sleep(0)
        return f"started {len(tasks)}"

    ran = Run(main)
    assert ran.closing is None
    ran.complete(2)
    ran.complete(1)
    assert ran.closing is None
    ran.complete(3)
    assert ran.result == "started 3"
    assert_replays(ran)


def test_a_task_that_was_never_run_is_cancelled_before_it_schedules_anything() -> None:
    async def main() -> None:
        asyncio.create_task(echo())  # noqa: RUF006

    ran = Run(main).finish()
    # The task begins in the same step, before main's end is looked at.
    assert ran.types[:2] == ["InstanceStarted", "ActivityScheduled"]
    assert ran.types[-1] == "InstanceCompleted"
    assert_replays(ran)


@pytest.mark.parametrize("wait", ["sleep", "signal", "event"])
def test_other_background_tasks_are_cancelled(wait: str) -> None:
    async def background() -> None:
        await {"sleep": lambda: asyncio.sleep(60), "signal": go.receive, "event": forever}[wait]()

    async def main() -> str:
        task = asyncio.create_task(background())
        await echo()
        return f"done {task.done()}"

    ran = run(main)
    assert ran.result == "done False"
    assert ran.types[-2:] == (["TimerCancelled"] if wait == "sleep" else ["ActivityCompleted"]) + ["InstanceCompleted"]


def test_their_clean_up_may_await_activities() -> None:
    async def background() -> None:
        try:
            await forever()
        finally:
            await clean_up("one")
            await clean_up("two")

    async def main() -> str:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        return f"done {task.done()}"

    ran = run(main)
    assert ran.scheduled() == [("clean_up", ["one"]), ("clean_up", ["two"])]
    assert ran.result == "done False"


def test_background_work_goes_on_while_an_activity_is_waited_for() -> None:
    async def background() -> None:
        await echo("first")
        await echo("second")
        await asyncio.sleep(3600)
        await echo("never")

    async def main() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        assert not task.done()

    ran = run(main)
    assert ran.scheduled() == [("echo", ["first"]), ("echo", ["second"])]


def test_nothing_runs_after_the_close() -> None:
    seen: list[int] = []

    async def main() -> int:
        return await go.receive()

    ran = Run(main)
    step = ran.send(signal("go", 1), signal("go", 2))
    assert (step.consumed, seen) == (1, [])
    assert ran.send(signal("go", 3)).consumed == 0


def test_the_result_is_checked_when_it_is_encoded() -> None:
    async def main() -> object:
        return object()

    failure = run(main).failure
    assert failure.type == "django_workflows.exceptions.PayloadError"
    assert "the result of tests.main" in failure.message


def test_the_history_length_counts_every_event() -> None:
    async def main() -> list[int]:
        lengths = [workflow.info().history_length]
        await asyncio.gather(echo(), echo())
        lengths.append(workflow.info().history_length)
        return lengths

    ran = run(main)
    assert ran.result == [1, 5]
    assert ran.machine.history_length == len(ran.events)


def test_what_a_close_leaves_open_is_told() -> None:
    @workflow(name="tests.leaves_open")
    async def leaves_open() -> None:
        task = asyncio.create_task(echo())
        await asyncio.sleep(0)
        assert not task.done()
        workflow.continue_as_new()

    ran = Run(leaves_open)
    assert [type(event) for event in ran.machine.open_commands()] == [ev.ActivityScheduled]


def test_an_async_generator_left_half_way_is_closed_at_the_end() -> None:
    async def values() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await clean_up("generator")

    async def main() -> str:
        async for _ in values():
            break
        await echo()
        return "done"

    ran = run(main)
    assert ran.scheduled() == [("echo", []), ("clean_up", ["generator"])]
    assert ran.result == "done"


def test_async_generators_that_are_used_up_are_forgotten() -> None:
    async def values() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        for _ in range(1000):
            async for _ in values():
                await asyncio.sleep(0)
        await go.receive()

    assert len(Run(main).machine._ending._generators) <= 100

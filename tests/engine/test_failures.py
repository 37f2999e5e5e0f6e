"""Failures: none is silent, whatever raised it and wherever; the instance fails, at once where nobody can handle it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from django_workflows import Signal, workflow
from django_workflows.engine import events as ev

from .activities import CardDeclined, clean_up, decline, echo
from .harness import Run, assert_replays, completed, forever, new_machine, run

go: Signal[None] = Signal("go")


@pytest.mark.parametrize(
    "error",
    [ValueError("broken"), SystemExit(2), KeyboardInterrupt(), GeneratorExit(), BaseException("any"), StopIteration(1)],
)
@pytest.mark.parametrize("after_an_activity", [False, True])
def test_whatever_the_main_function_raises_fails_the_instance(error: BaseException, after_an_activity: bool) -> None:
    async def main() -> None:
        if after_an_activity:
            await echo()
        raise error

    failure = run(main).failure
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)
    assert failure.type == f"builtins.{expected.__name__}"
    assert "raise error" in failure.format()


def test_an_exception_whose_truth_value_is_false_fails_it_too() -> None:
    class Empty(Exception):
        def __len__(self) -> int:
            return 0

    async def main() -> None:
        raise Empty

    assert run(main).failure.type.endswith("Empty")


def test_a_group_out_of_a_task_group_fails_the_instance() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(decline("first"))
            group.create_task(forever())

    ran = run(main)
    assert ran.failure.type == "builtins.ExceptionGroup"
    assert [member.message for member in ran.failure.members] == ["first"]


def test_a_group_that_is_handled_does_not() -> None:
    async def main() -> str:
        handled = "no"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(decline())
                group.create_task(asyncio.sleep(1000))
        except* CardDeclined:
            handled = "yes"
        await echo()
        return handled

    assert run(main).result == "yes"


@pytest.mark.parametrize("error", [ValueError("in the background"), SystemExit(1), GeneratorExit()])
def test_a_background_task_that_nobody_holds_fails_the_instance_at_once(error: BaseException) -> None:
    async def background() -> None:
        await echo()
        raise error

    async def main() -> None:
        asyncio.create_task(background())  # noqa: RUF006 (that is the point)
        await asyncio.sleep(3600)

    ran = Run(main)
    ran.complete(2)
    assert ran.failure.type == f"builtins.{type(error).__name__}"
    assert ran.types[-3:] == ["BackgroundTaskFailed", "TimerCancelled", "InstanceFailed"]
    assert_replays(ran)


def test_one_that_fails_in_a_task_group_of_its_own_is_found_at_once_too() -> None:
    async def background() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(decline("inside"))

    async def main() -> None:
        asyncio.create_task(background())  # noqa: RUF006
        await go.receive()

    gc.disable()
    try:
        ran = Run(main).finish()
    finally:
        gc.enable()
    assert [member.message for member in ran.failure.members] == ["inside"]
    assert_replays(ran)


def test_one_that_is_dropped_later_fails_the_instance_then() -> None:
    async def starts_it() -> None:
        task = asyncio.create_task(decline("dropped"))
        await asyncio.sleep(0)
        await echo()
        assert task.done()

    async def main() -> None:
        await starts_it()
        await go.receive()

    ran = Run(main).finish()
    assert ran.failure.message == "dropped"
    assert_replays(ran)


def test_one_that_is_awaited_later_can_be_handled() -> None:
    async def main() -> str:
        task = asyncio.create_task(decline("later"))
        await echo()
        await asyncio.sleep(60)
        try:
            await task
        except CardDeclined as error:
            return f"handled {error}"
        return "no"

    assert run(main).result == "handled later"


@pytest.mark.parametrize("look", [asyncio.Task.exception, lambda task: task.add_done_callback(lambda t: t.exception())])
def test_one_whose_exception_was_looked_at_is_handled(look: Callable[[asyncio.Task[Any]], object]) -> None:
    async def main() -> str:
        task = asyncio.create_task(decline())
        await asyncio.wait([task])
        look(task)
        del task
        await echo()
        return "fine"

    assert run(main).result == "fine"


def test_one_that_is_held_and_never_looked_at_fails_the_instance_at_the_end() -> None:
    held: list[asyncio.Task[Any]] = []

    async def main() -> str:
        held.append(asyncio.create_task(decline("held")))
        await echo()
        return "done"

    ran = Run(main).finish()
    assert ran.failure.message == "held"
    assert "BackgroundTaskFailed" not in ran.types
    assert_replays(ran)


def test_what_the_garbage_collector_found_live_is_found_at_the_same_event_on_replay() -> None:
    class Cycle:
        task: asyncio.Task[Any]
        myself: Cycle

    async def starts_it() -> None:
        cycle = Cycle()
        cycle.myself = cycle
        cycle.task = asyncio.create_task(decline("in a cycle"))
        await asyncio.wait([cycle.task])

    async def main() -> None:
        await starts_it()
        for _ in range(3):
            await echo()

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        ran = Run(main)
        ran.finish_one()
        ran.finish_one()
        gc.collect()
        ran.finish()
    finally:
        if was_enabled:
            gc.enable()
    assert ran.failure.message == "in a cycle"
    number = ran.types.index("BackgroundTaskFailed")
    assert ran.types[number - 2 : number] == ["ActivityScheduled", "ActivityCompleted"]
    # Replay comes upon the failure at any moment, yet ends at the same event.
    for collect in (False, True):
        machine = new_machine(main)
        for cut in range(1, len(ran.history)):
            if collect:
                gc.collect()
            machine = new_machine(main)
            if isinstance(ran.events[cut], ev.InputEvent):
                machine.replay(ran.history[:cut])
                machine.dispose()
        new_machine(main).replay(ran.history)


def test_two_background_failures_the_older_task_is_told() -> None:
    async def main() -> None:
        for name in ("a", "b"):
            asyncio.create_task(decline(name))  # noqa: RUF006
        await go.receive()

    from django_workflows.failures import Failure

    ran = Run(main)
    failures = [ev.ActivityFailed(command=number, failure=Failure.of(CardDeclined(str(number)))) for number in (2, 1)]
    ran.send(*failures)
    assert ran.failure.message == "2"  # events are applied one by one
    assert_replays(ran)


def test_an_error_in_a_bare_callback_fails_the_instance() -> None:
    for error in (ValueError("callback"), SystemExit("callback"), KeyboardInterrupt("callback")):

        def broken(error: BaseException = error) -> None:
            raise error

        async def main(broken: Any = broken) -> None:
            asyncio.get_running_loop().call_soon(broken)
            await go.receive()

        assert Run(main).failure.message == "callback"


def test_an_error_in_a_done_callback_fails_the_instance() -> None:
    async def main() -> None:
        task = asyncio.create_task(echo())
        task.add_done_callback(lambda task: 1 / 0)
        await go.receive()

    ran = Run(main).finish()
    assert ran.failure.type == "builtins.ZeroDivisionError"
    assert_replays(ran)


def test_an_error_in_a_callback_after_main_has_returned_fails_it_too() -> None:
    async def main() -> str:
        task = asyncio.create_task(echo())
        task.add_done_callback(lambda task: 1 / 0)
        await asyncio.sleep(0)
        return "done"

    assert run(main).failure.type == "builtins.ZeroDivisionError"


@pytest.mark.parametrize("error", [ValueError, StopIteration, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_an_exception_in_the_predicate_of_a_condition_is_raised_where_it_waits(error: type[BaseException]) -> None:
    async def main() -> str:
        broken = False

        def predicate() -> bool:
            if broken:
                raise error("predicate")
            return False

        async def break_it() -> None:
            nonlocal broken
            await echo()
            broken = True

        task = asyncio.create_task(break_it())
        try:
            await workflow.wait_condition(predicate)
        except BaseException as caught:
            await task
            return type(caught).__name__
        return "nothing"

    assert run(main).result == ("RuntimeError" if error in (StopIteration, GeneratorExit) else error.__name__)


def test_a_failing_instance_cancels_its_tasks_and_waits_for_their_clean_up() -> None:
    async def worker() -> None:
        try:
            await go.receive()
        finally:
            await clean_up("worker")

    async def main() -> None:
        task = asyncio.create_task(worker())
        await echo()
        assert not task.done()
        raise ValueError("main")

    ran = run(main)
    assert ran.failure.message == "main"
    assert ran.scheduled()[-1] == ("clean_up", ["worker"])


def test_a_failure_in_clean_up_is_not_lost_when_main_has_returned() -> None:
    async def worker() -> None:
        try:
            await go.receive()
        finally:
            raise ValueError("clean-up")

    async def main() -> str:
        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        return f"done {task.done()}"

    assert run(main).failure.message == "clean-up"


def test_an_undecodable_input_is_raised_to_the_worker() -> None:
    from django_workflows import PayloadError

    async def main(number: int) -> None: ...

    with pytest.raises(PayloadError):
        Run(main, "not a number")


def test_a_failure_handled_by_gather_with_return_exceptions() -> None:
    async def main() -> list[str]:
        results = await asyncio.gather(decline("a"), echo("b"), return_exceptions=True)
        return [str(result) for result in results]

    assert run(main).result == ["a", "b"]


def test_the_second_failure_of_a_gather_is_nobodys() -> None:
    async def main() -> str:
        try:
            await asyncio.gather(decline("a"), decline("b"))
        except CardDeclined as error:
            first = str(error)
        await echo()
        return first

    assert run(main).result == "a"


def test_a_completion_after_the_failure_is_ignored() -> None:
    async def main() -> None:
        try:
            await asyncio.gather(echo(), decline())
        finally:
            await clean_up()

    ran = Run(main)
    ran.fail(2, CardDeclined("x"))
    ran.send(completed(3), completed(1))
    assert ran.failure.message == "x"
    assert_replays(ran)

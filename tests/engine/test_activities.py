"""Activities: scheduled once awaited, their results in order, their failures as themselves."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from django_workflows import ActivityError, NotInWorkflowError, RetryPolicy, activity, workflow
from django_workflows.engine import events as ev
from django_workflows.failures import Failure

from .activities import CardDeclined, charge, decline, double, echo
from .harness import Run, assert_replays, completed, run


@workflow
async def child(number: int) -> int:
    return await double(number) + 1


def test_a_result_arrives_as_what_the_activity_returned() -> None:
    async def main() -> int:
        return await double(21)

    ran = run(main)
    assert ran.result == 42
    assert ran.types == ["InstanceStarted", "ActivityScheduled", "ActivityCompleted", "InstanceCompleted"]


def test_keyword_arguments_and_defaults_reach_the_activity() -> None:
    async def main() -> list[str]:
        return [await charge(1), await charge(2, cents=5), await charge(order_id=3)]

    assert run(main).result == ["1:100", "2:5", "3:100"]


def test_results_of_gather_are_in_order_while_the_history_has_the_order_of_completion() -> None:
    async def main() -> list[str]:
        return await asyncio.gather(echo("a"), echo("b"), echo("c"))

    ran = Run(main)
    ran.send(completed(3, "c"), completed(1, "a"))
    ran.send(completed(2, "b"))
    assert ran.result == ["a", "b", "c"]
    assert [event.command for event in ran.events if isinstance(event, ev.ActivityCompleted)] == [3, 1, 2]
    assert_replays(ran)


def test_a_thousand_run_in_parallel() -> None:
    async def main() -> int:
        return sum(await asyncio.gather(*[double(number) for number in range(1000)]))

    ran = Run(main)
    assert len(ran.open()) == 1000
    assert run(main).result == 999_000


def test_nothing_is_scheduled_before_the_call_is_awaited() -> None:
    async def main() -> str:
        first = echo("first")
        second = await echo("second")
        return f"{await first} {second}"

    ran = run(main)
    assert ran.scheduled() == [("echo", ["second"]), ("echo", ["first"])]


def test_a_result_that_comes_twice_or_late_is_ignored() -> None:
    async def main() -> None:
        await echo()
        await echo()

    ran = Run(main)
    ran.complete(1)
    step = ran.complete(1)
    assert (step.events, step.consumed) == ([], 1)
    ran.complete(2)
    assert ran.closing
    assert_replays(ran)


def test_events_after_the_close_are_left_to_whoever_comes_next() -> None:
    async def main() -> None:
        await echo()

    ran = Run(main)
    step = ran.send(completed(1), ev.SignalReceived("late"))
    assert step.consumed == 1


def test_an_exception_arrives_as_itself() -> None:
    async def main() -> str:
        try:
            await decline("no funds")
        except CardDeclined as error:
            return f"declined: {error}"
        return "paid"

    assert run(main).result == "declined: no funds"


@pytest.mark.parametrize(
    ("error", "arrives_as"),
    [
        (StopIteration("end"), "RuntimeError"),
        (asyncio.CancelledError("its own"), "ActivityError"),
        (SystemExit(3), "ActivityError"),
        (GeneratorExit(), "ActivityError"),
        (BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError()]), "ActivityError"),
        (ExceptionGroup("two", [ValueError(), KeyError()]), "ExceptionGroup"),
        (StopAsyncIteration(), "StopAsyncIteration"),
    ],
)
def test_what_an_activity_raises_is_never_mistaken_for_a_cancellation(error: BaseException, arrives_as: str) -> None:
    async def main() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(echo())
        except ExceptionGroup as caught:
            return type(caught.exceptions[0]).__name__
        return "nothing"

    ran = Run(main)
    ran.fail(1, error)
    assert ran.result == arrives_as
    assert_replays(ran)


def test_an_unknown_exception_class_arrives_as_an_activity_error() -> None:
    async def main() -> str:
        try:
            await echo()
        except ActivityError as error:
            return error.type
        return "nothing"

    ran = Run(main)
    ran.send(ev.ActivityFailed(command=1, failure=Failure(type="gone.Away", message="x")))
    assert ran.result == "gone.Away"


def test_wrong_arguments_are_an_error_at_the_call() -> None:
    async def main() -> None:
        await charge()  # type: ignore[call-arg]

    failure = run(main).failure
    assert (failure.type, "charge() missing a required argument: 'order_id'" in failure.message) == (
        "builtins.TypeError",
        True,
    )


def test_the_activity_runs_on_the_queue_of_the_workflow_unless_told_otherwise() -> None:
    async def main() -> None:
        await echo()
        await echo.using(queue="mail", retry=RetryPolicy(max_attempts=2), start_to_close_timeout=timedelta(seconds=9))()

    first, second = [event for event in run(main).events if isinstance(event, ev.ActivityScheduled)]
    assert (first.queue, second.queue) == ("default", "mail")
    assert second.options["start_to_close"] == 9.0
    assert second.options["retry"]["max_attempts"] == 2


def test_a_child_workflow_gives_its_result_or_its_failure() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(child(1), child(2))

    ran = run(main)
    assert ran.result == [3, 5]
    children = [event for event in ran.events if isinstance(event, ev.ChildScheduled)]
    assert len({event.execution_id for event in children}) == 2


@pytest.mark.parametrize(("call", "remedy"), [(lambda: echo(), ".call("), (lambda: child(1), ".start(")])
def test_calling_it_outside_a_workflow_names_the_remedy(call: object, remedy: str) -> None:
    with pytest.raises(NotInWorkflowError) as caught:
        call()  # type: ignore[operator]
    assert remedy in str(caught.value)


def test_the_bare_function_is_there_to_call() -> None:
    assert double.call(4) == 8


def test_a_forgotten_await_gives_pythons_own_warning_with_the_name_of_the_activity() -> None:
    async def main() -> None:
        echo(1)  # type: ignore[unused-coroutine]

    with pytest.warns(RuntimeWarning, match=r"coroutine 'engine\.echo' was never awaited"):
        ran = Run(main)
    assert ran.types == ["InstanceStarted", "InstanceCompleted"]


def test_two_activities_of_one_name_are_refused() -> None:
    from django_workflows import RegistrationError

    @activity(name="tests.same")
    def one() -> None: ...

    with pytest.raises(RegistrationError, match=r"two activity definitions are named 'tests\.same'"):

        @activity(name="tests.same")
        def two() -> None: ...

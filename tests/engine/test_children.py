"""Child workflows as their parent's machine sees them: what it decides, and what it does with each outcome.

Numbers: a test's first child is command 1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_workflows import (
    ChildWorkflowTerminated,
    InstanceAlreadyExists,
    InstanceNotRunning,
    NotAllowedInWorkflowError,
    NotInWorkflowError,
    PayloadError,
    RetryPolicy,
    Signal,
    Workflow,
    WorkflowCancelled,
    workflow,
)
from django_workflows.engine import events as ev
from tests.testapp.models import Effect

from .activities import CardDeclined, clean_up, echo
from .harness import Run, assert_replays, child_cancelled, child_completed, child_failed, completed, refused, run

word = Signal("word", str)


@workflow(name="children.engine.square")
async def square(number: int) -> int:
    if number < 0:
        raise CardDeclined("negative")
    return number * number


chosen: Workflow[[int], int] = square.using(instance_id="square-1")
abandoned: Workflow[[int], int] = square.using(parent_close="abandon")
terminated: Workflow[[int], int] = square.using(parent_close="terminate")


def after(ran: Run, count: int) -> list[str]:
    """The kinds of the events after the first so many."""
    return ran.types[count:]


# What is recorded


def test_a_child_is_recorded_with_all_that_its_row_needs() -> None:
    async def main() -> None:
        await square.using(
            instance_id="square-1", queue="numbers", retry=RetryPolicy(max_attempts=2), parent_close="terminate",
            subject=Effect(pk=7), attributes={"colour": "red"},
        )(3)  # fmt: skip

    ran = run(main)
    event = ran.events[1]
    assert isinstance(event, ev.ChildScheduled)
    assert (event.name, bytes(event.input), event.queue) == ("children.engine.square", b"[[3],{}]", "numbers")
    assert (event.instance_id, event.chosen_id, len(event.execution_id)) == ("square-1", True, 32)
    assert event.options.policy == RetryPolicy(max_attempts=2)
    assert event.options.parent_close == "terminate"
    assert (event.subject, event.attributes) == (("testapp.effect", "7"), {"colour": "red"})


def test_without_options_it_has_an_id_of_the_engines_making_and_its_parents_queue() -> None:
    async def main() -> int:
        return await square(3)

    ran = run(main)
    event = ran.events[1]
    assert isinstance(event, ev.ChildScheduled)
    assert (event.instance_id, event.chosen_id, event.queue) == (event.execution_id, False, "default")
    assert ran.result == 9


def test_the_options_of_the_definition_are_those_of_a_child() -> None:
    @workflow(name="children.engine.defined", queue="numbers", retry=RetryPolicy(max_attempts=4))
    async def defined() -> None: ...

    async def main() -> None:
        await defined()
        await defined.using(queue="others", retry=None)()

    ran = run(main)
    first, second = (event for event in ran.events if isinstance(event, ev.ChildScheduled))
    assert (first.queue, first.options.policy) == ("numbers", RetryPolicy(max_attempts=4))
    assert (second.queue, second.options.policy) == ("others", None)


def test_results_arrive_whatever_the_order_of_their_ends() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(square(number) for number in range(5)))

    ran = Run(main)
    for command in (3, 1, 5, 2, 4):
        ran.send(child_completed(command, command * 10))
    assert ran.result == [10, 20, 30, 40, 50]
    assert_replays(ran)


def test_a_failure_arrives_as_itself() -> None:
    async def main() -> str:
        try:
            await square(-1)
        except CardDeclined as error:
            return str(error)
        return "no error"

    assert run(main).result == "negative"


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (WorkflowCancelled("by somebody else"), WorkflowCancelled),
        (ChildWorkflowTerminated("by somebody"), ChildWorkflowTerminated),
    ],
)
def test_an_end_that_somebody_else_imposed_is_an_error_of_its_own(error: Exception, seen: type[Exception]) -> None:
    async def main() -> str:
        try:
            await square(3)
        except seen as found:
            return str(found)
        return "no error"

    ran = Run(main)
    ran.send(child_failed(1, error))
    assert ran.result == str(error)
    assert_replays(ran)


# Ids that authors choose


def test_a_chosen_id_that_is_open_is_an_error_at_the_await() -> None:
    async def main() -> str:
        try:
            await chosen(3)
        except InstanceAlreadyExists:
            return "taken"
        return "free"

    ran = Run(main)
    ran.send(child_failed(1, InstanceAlreadyExists("open")))
    assert ran.result == "taken"
    assert_replays(ran)


def test_that_error_fails_a_parent_that_does_not_catch_it() -> None:
    async def main() -> None:
        await chosen(3)

    ran = Run(main)
    ran.send(child_failed(1, InstanceAlreadyExists("open")))
    assert ran.failure.type.endswith("InstanceAlreadyExists")
    assert_replays(ran)


def test_it_fails_a_parent_that_has_returned_too_even_for_an_abandoned_child() -> None:
    async def main() -> str:
        abandoned.using(instance_id="square-1").start_child(3)
        return "returned"

    ran = Run(main)
    assert ran.closing is None, "it waits to hear whether the child could be started"
    ran.send(child_failed(1, InstanceAlreadyExists("open")))
    assert ran.failure.type.endswith("InstanceAlreadyExists")
    assert_replays(ran)


def test_started_waits_for_the_start_and_no_longer() -> None:
    async def main() -> str:
        child = chosen.start_child(3)
        await child.started()
        await echo("started")
        return str(await child)

    ran = Run(main)
    assert after(ran, 1) == ["ChildScheduled"]
    ran.send(ev.ChildStarted(1))
    assert after(ran, 2) == ["ChildStarted", "ActivityScheduled"]
    ran.send(completed(2), child_completed(1, 9))
    assert ran.result == "9"
    assert_replays(ran)


def test_started_raises_that_the_id_was_taken_and_that_counts_as_heard() -> None:
    async def main() -> str:
        child = chosen.start_child(3)
        try:
            await child.started()
        except InstanceAlreadyExists:
            return "taken"
        return "free"

    ran = Run(main)
    ran.send(child_failed(1, InstanceAlreadyExists("open")))
    assert ran.result == "taken"
    assert_replays(ran)


def test_started_says_nothing_of_how_the_child_ended() -> None:
    async def main() -> str:
        child = chosen.start_child(-1)
        await echo()
        await child.started()
        try:
            await child
        except CardDeclined:
            return "started, and failed"
        return ""

    ran = Run(main)
    ran.send(ev.ChildStarted(1), child_failed(1, CardDeclined("negative")), completed(2))
    assert ran.result == "started, and failed"
    assert_replays(ran)


def test_started_of_an_id_of_the_engines_making_does_not_wait() -> None:
    async def main() -> int:
        child = square.start_child(3)
        await child.started()
        return await child

    ran = Run(main)
    ran.send(child_completed(1, 9))
    assert ran.result == 9
    assert_replays(ran)


def test_who_gives_up_waiting_for_the_start_leaves_it_to_the_others() -> None:
    async def main() -> int:
        child = chosen.start_child(3)
        impatient = asyncio.create_task(child.started())
        await echo()
        impatient.cancel()
        await child.started()
        return await child

    ran = Run(main)
    ran.send(completed(2), ev.ChildStarted(1), child_completed(1, 9))
    assert ran.result == 9
    assert_replays(ran)


# Cancelling the await


def test_of_a_recorded_child_asks_it_to_cancel_and_waits_for_its_end() -> None:
    async def main() -> None:
        try:
            await square(3)
        except asyncio.CancelledError:
            await clean_up()
            raise

    ran = Run(main)
    ran.cancel("customer left")
    assert after(ran, 2) == ["CancelRequested", "ChildCancelRequested"]
    ran.send(child_cancelled(1))
    ran.complete(2)
    assert after(ran, 4) == ["ChildFailed", "ActivityScheduled", "ActivityCompleted", "InstanceCancelled"]
    assert_replays(ran)


def test_the_reason_is_not_lost_meanwhile() -> None:
    async def main() -> str:
        try:
            await square(3)
        except asyncio.CancelledError as error:
            return str(error)
        return ""

    ran = Run(main)
    ran.cancel("customer left")
    ran.send(child_cancelled(1))
    assert ran.result == "customer left"
    assert_replays(ran)


def test_of_a_child_that_returns_nevertheless_gives_its_result() -> None:
    async def main() -> int:
        return await square(3)

    ran = Run(main)
    ran.cancel()
    ran.send(child_completed(1, 9, cancel_requested=True))
    assert ran.result == 9
    assert isinstance(ran.closing, ev.InstanceCompleted)
    assert ran.closing.cancel_requested, "as its own parent will be told"
    assert_replays(ran)


@pytest.mark.parametrize("outcome", [child_completed(1, 9), child_failed(1, CardDeclined("negative"))])
def test_of_a_child_that_had_ended_before_it_heard_of_it_is_not_lost(outcome: ev.InputEvent) -> None:
    async def main() -> object:
        try:
            return await square(3)
        except CardDeclined:
            return None

    ran = Run(main)
    ran.send(ev.CancelRequested("customer left"), outcome)
    assert ran.types[-1] == "InstanceCancelled"
    assert_replays(ran)


def test_by_a_handle_is_too_late_for_a_child_that_had_ended() -> None:
    async def main() -> int:
        child = square.start_child(3)
        await echo()
        child.cancel()
        return await child

    ran = Run(main)
    ran.complete(2)
    ran.send(child_completed(1, 9))
    assert ran.result == 9
    assert_replays(ran)


def test_of_a_child_whose_clean_up_fails_gives_its_error() -> None:
    async def main() -> None:
        await square(3)

    ran = Run(main)
    ran.cancel()
    ran.send(child_failed(1, CardDeclined("in clean-up"), cancel_requested=True))
    assert ran.failure.message == "in clean-up"
    assert_replays(ran)


@pytest.mark.parametrize("using", [square, chosen, terminated])
def test_before_it_is_recorded_never_starts_the_child(using: Workflow[[int], int]) -> None:
    async def main() -> str:
        task = asyncio.create_task(using(3))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "never started"
        return ""

    ran = run(main)
    assert ran.types == ["InstanceStarted", "InstanceCompleted"]
    assert ran.result == "never started"


def test_by_the_policy_terminate_ends_the_await_at_once() -> None:
    async def main() -> str:
        try:
            await terminated(3)
        except asyncio.CancelledError:
            return "at once"
        return ""

    ran = Run(main)
    ran.cancel()
    assert after(ran, 2) == ["CancelRequested", "ChildCancelRequested", "InstanceCompleted"]
    event = ran.events[3]
    assert isinstance(event, ev.ChildCancelRequested)
    assert event.terminate
    assert_replays(ran)


def test_by_the_policy_abandon_leaves_the_child_alone() -> None:
    async def main() -> str:
        try:
            await abandoned(3)
        except asyncio.CancelledError:
            return "alone"
        return ""

    ran = Run(main)
    ran.cancel()
    assert after(ran, 2) == ["CancelRequested", "InstanceCompleted"]
    assert ran.open() == []
    assert_replays(ran)


def test_by_the_policy_abandon_even_before_it_is_recorded_lets_it_start() -> None:
    async def main() -> None:
        child = abandoned.start_child(3)
        child.task.cancel()
        await echo()

    ran = Run(main)
    assert after(ran, 1) == ["ChildScheduled", "ActivityScheduled"]
    assert ran.send(child_completed(1, 9)).events == [], "nobody waits for it"
    ran.finish()
    assert after(ran, 3) == ["ActivityCompleted", "InstanceCompleted"]
    assert_replays(ran)


@pytest.mark.parametrize("using", [square, terminated, abandoned])
def test_of_the_task_of_a_handle_before_it_runs_counts(using: Workflow[[int], int]) -> None:
    async def main() -> None:
        child = using.start_child(3)
        await workflow.sleep(10)
        other = using.start_child(4)
        await asyncio.sleep(0)
        child.task.cancel()
        other.task.cancel()
        await workflow.sleep(10)

    ran = Run(main)
    ran.advance(10)
    kinds = [event.type for event in ran.events if isinstance(event, ev.ChildScheduled | ev.ChildCancelRequested)]
    if using is abandoned:
        assert kinds == ["ChildScheduled", "ChildScheduled"]
    else:
        assert kinds == ["ChildScheduled", "ChildCancelRequested"]
    assert_replays(ran)


@pytest.mark.parametrize(("using", "expected"), [(chosen, [False]), (chosen.using(parent_close="terminate"), [True])])
def test_while_it_is_starting_asks_it_as_soon_as_it_is(using: Workflow[[int], int], expected: list[bool]) -> None:
    async def main() -> None:
        try:
            async with asyncio.timeout(10):
                await using(3)
        except TimeoutError:
            pass
        await echo()

    ran = Run(main)
    ran.advance(10)
    assert "ChildCancelRequested" not in ran.types
    step = ran.send(ev.ChildStarted(2))  # the timeout is command 1
    asked = [event for event in step.events if isinstance(event, ev.ChildCancelRequested)]
    assert [event.terminate for event in asked] == expected
    ran.send(child_cancelled(2))
    ran.finish()
    assert ran.types[-1] == "InstanceCompleted"
    assert_replays(ran)


def test_of_a_child_that_then_could_not_be_started_is_a_cancellation() -> None:
    async def main() -> None:
        await chosen(3)

    ran = Run(main)
    ran.cancel()
    ran.send(child_failed(1, InstanceAlreadyExists("open")))
    assert ran.types[-1] == "InstanceCancelled"
    assert_replays(ran)


def test_by_a_timeout_waits_for_the_childs_clean_up() -> None:
    async def main() -> str:
        try:
            async with asyncio.timeout(60):
                await square(3)
        except TimeoutError:
            return f"after {workflow.time()}"
        return ""

    ran = Run(main)
    ran.advance(60)
    assert ran.closing is None
    ran.now += timedelta(seconds=5)
    ran.send(child_cancelled(2))  # the timeout is command 1
    assert ran.result == f"after {ran.now.timestamp()}"
    assert_replays(ran)


def test_of_a_task_group_asks_every_child_of_it() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(square(number))

    ran = Run(main)
    ran.send(child_failed(2, CardDeclined("no")))
    assert after(ran, 4) == ["ChildFailed", "ChildCancelRequested", "ChildCancelRequested"]
    ran.send(child_cancelled(1))
    assert ran.closing is None
    ran.send(child_cancelled(3))
    assert [member.type for member in ran.failure.members] == ["tests.engine.activities.CardDeclined"]
    assert_replays(ran)


# Handles


def test_cancel_of_a_handle_asks_the_child_and_awaiting_it_is_cancelled() -> None:
    async def main() -> str:
        child = abandoned.start_child(3)
        await echo()
        child.cancel()
        child.cancel()
        try:
            await child
        except asyncio.CancelledError:
            return "cancelled"
        return ""

    ran = Run(main)
    ran.complete(2)
    assert after(ran, 3) == ["ActivityCompleted", "ChildCancelRequested"]
    assert ran.closing is None
    ran.send(child_cancelled(1))
    assert ran.result == "cancelled"
    assert_replays(ran)


@pytest.mark.parametrize("using", [square, chosen, abandoned])
def test_cancel_of_a_handle_in_the_step_that_made_it_never_starts_the_child(using: Workflow[[int], int]) -> None:
    async def main() -> list[bool]:
        child = using.start_child(3)
        child.cancel()
        seen = []
        for wait in (child.started, lambda: child):
            try:
                await wait()
            except asyncio.CancelledError:
                seen.append(child.done())
        return seen

    ran = run(main)
    assert ran.types == ["InstanceStarted", "InstanceCompleted"]
    assert ran.result == [True, True]


def test_cancel_of_a_handle_that_nobody_awaits_any_more_still_asks() -> None:
    async def main() -> None:
        child = abandoned.start_child(3)
        try:
            async with asyncio.timeout(10):
                await child
        except TimeoutError:
            child.cancel()
        await echo()

    ran = Run(main)
    ran.advance(10)
    assert after(ran, 3) == ["TimerFired", "ChildCancelRequested", "ActivityScheduled"]
    assert_replays(ran.finish())


def test_cancel_of_a_handle_whose_child_has_ended_does_nothing() -> None:
    async def main() -> None:
        child = square.start_child(3)
        await child
        child.cancel()
        await echo()

    assert "ChildCancelRequested" not in run(main).types


def test_an_await_that_is_cancelled_after_cancel_may_still_terminate() -> None:
    async def main() -> None:
        child = terminated.start_child(3)
        await echo()
        child.cancel()
        await echo()
        child.task.cancel()
        await echo()

    ran = Run(main)
    ran.complete(2)
    ran.complete(3)
    asked = [event.terminate for event in ran.events if isinstance(event, ev.ChildCancelRequested)]
    assert asked == [False, True]
    assert_replays(ran.finish())


def test_a_handle_names_the_child_and_is_done_when_the_child_is() -> None:
    async def main() -> list[Any]:
        child = chosen.start_child(3)
        before = child.done()
        await child
        return [child.instance_id, len(child.execution_id), before, child.done()]

    assert run(main).result == ["square-1", 32, False, True]


def test_a_handles_task_takes_part_in_what_asyncio_offers() -> None:
    async def main() -> int:
        children = [square.start_child(number) for number in (3, 4)]
        done, pending = await asyncio.wait([child.task for child in children], return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return done.pop().result()

    ran = Run(main)
    ran.send(child_completed(2, 16))
    assert ran.types[-1] == "ChildCancelRequested"
    ran.send(child_cancelled(1))
    assert ran.result == 16
    assert_replays(ran)


def test_the_failure_of_a_child_that_nobody_awaits_fails_the_parent() -> None:
    async def main() -> str:
        child = square.start_child(-1)
        await echo()
        return child.instance_id

    ran = Run(main)
    ran.send(child_failed(1, CardDeclined("negative")))
    ran.finish()
    assert ran.failure.message == "negative"
    assert_replays(ran)


# Signals to children


def test_a_signal_to_a_child_names_that_very_child() -> None:
    async def main() -> None:
        child = square.start_child(3)
        await child.signal(word, "hello")
        await child

    ran = run(main)
    sent = ran.events[2]
    assert isinstance(sent, ev.SignalSent)
    assert (sent.child, sent.name, bytes(sent.value)) == (1, "word", b'"hello"')


def test_a_signal_to_a_child_with_a_chosen_id_waits_until_it_exists() -> None:
    async def main() -> None:
        child = chosen.start_child(3)
        await child.signal(word, "hello")

    ran = Run(main)
    assert after(ran, 1) == ["ChildScheduled"]
    ran.send(ev.ChildStarted(1))
    assert after(ran, 2) == ["ChildStarted", "SignalSent"]
    ran.send(ev.MessageDelivered(2), child_completed(1, 9))
    assert ran.types[-1] == "InstanceCompleted"
    assert_replays(ran)


def test_a_signal_to_a_child_whose_id_was_taken_goes_nowhere() -> None:
    async def main() -> str:
        child = chosen.start_child(3)
        try:
            await child.signal(word, "hello")
        except InstanceAlreadyExists:
            return "not sent"
        return "sent"

    ran = Run(main)
    ran.send(child_failed(1, InstanceAlreadyExists("open")))
    assert ran.result == "not sent"
    assert "SignalSent" not in ran.types
    assert_replays(ran)


def test_a_signal_to_a_child_that_has_closed_is_refused() -> None:
    async def main() -> str:
        child = square.start_child(3)
        await child
        try:
            await child.signal(word, "hello")
        except InstanceNotRunning:
            return "too late"
        return ""

    ran = Run(main)
    ran.send(child_completed(1, 9))
    ran.send(refused(2, InstanceNotRunning("closed")))
    assert ran.result == "too late"
    assert_replays(ran)


# How a parent ends


def test_a_returned_parent_waits_for_its_children() -> None:
    async def main() -> str:
        square.start_child(3)
        return "returned"

    ran = Run(main)
    assert ran.closing is None
    ran.send(child_completed(1, 9))
    assert ran.result == "returned"
    assert_replays(ran)


def test_a_returned_parent_does_not_wait_for_abandoned_children() -> None:
    async def main() -> str:
        abandoned.start_child(3)
        return "returned"

    ran = Run(main)
    assert ran.types == ["InstanceStarted", "ChildScheduled", "InstanceCompleted"]
    assert ran.open() == []
    assert_replays(ran)


def test_a_returned_parent_waits_until_an_abandoned_child_with_a_chosen_id_exists() -> None:
    async def main() -> str:
        abandoned.using(instance_id="square-1").start_child(3)
        return "returned"

    ran = Run(main)
    assert ran.closing is None
    ran.send(ev.ChildStarted(1))
    assert ran.result == "returned"
    assert ran.open() == []
    assert_replays(ran)


@pytest.mark.parametrize("using", [square, chosen, terminated])
def test_a_parent_that_fails_leaves_its_open_children_to_be_told(using: Workflow[[int], int]) -> None:
    async def main() -> None:
        asyncio.create_task(using(3))  # noqa: RUF006
        await asyncio.sleep(0)
        await echo()
        raise CardDeclined("no")

    ran = Run(main)
    ran.complete(2)
    if ran.closing is None:  # it waits for the end of the child that it asked to cancel
        ran.send(ev.ChildStarted(1), child_cancelled(1))
    assert ran.failure.message == "no"
    assert_replays(ran)


def test_a_parent_that_continues_as_new_names_what_it_leaves() -> None:
    @workflow(name="children.engine.restless")
    async def restless() -> None:
        square.start_child(3)
        terminated.start_child(4)
        abandoned.start_child(5)
        await echo()
        workflow.continue_as_new()

    ran = Run(restless)
    ran.complete(4)
    assert ran.types[-1] == "InstanceContinuedAsNew"
    left = [event.options.parent_close for event in ran.open() if isinstance(event, ev.ChildScheduled)]
    assert left == ["cancel", "terminate", "abandon"]
    assert_replays(ran)


def test_a_child_that_is_starting_and_not_wanted_any_more_is_told_so_at_the_close() -> None:
    async def main() -> None:
        child = chosen.using(parent_close="terminate").start_child(3)
        await echo()
        child.task.cancel()
        raise CardDeclined("no")

    ran = Run(main)
    ran.complete(2)
    assert ran.closing is not None
    [left] = ran.open()
    assert isinstance(left, ev.ChildCancelRequested)
    assert (left.command, left.terminate) == (1, True)
    assert_replays(ran)


def test_a_child_that_is_starting_and_was_asked_to_cancel_still_ends_with_its_parent() -> None:
    async def main() -> None:
        child = chosen.using(parent_close="terminate").start_child(3)
        await echo()
        child.cancel()
        await workflow.sleep(60)

    ran = Run(main)
    ran.complete(2)
    ran.send(ev.TerminateRequested("its parent closed"))
    assert ran.closing is not None
    left = next(event for event in ran.open() if event.command == 1)
    assert isinstance(left, ev.ChildScheduled)
    assert left.options.parent_close == "terminate"
    assert_replays(ran)


def test_a_cancelled_parent_that_has_returned_gives_its_children_up() -> None:
    async def main() -> str:
        square.start_child(3)
        return "returned"

    ran = Run(main)
    ran.cancel()
    assert ran.types[-1] == "ChildCancelRequested"
    ran.send(child_cancelled(1))
    assert ran.types[-1] == "InstanceCancelled"
    assert_replays(ran)


def test_a_late_outcome_of_a_child_that_nobody_awaits_is_no_event() -> None:
    async def main() -> None:
        try:
            await terminated(3)
        except asyncio.CancelledError:
            await clean_up()

    ran = Run(main)
    ran.cancel()
    assert ran.send(child_failed(1, ChildWorkflowTerminated("ended"))).events == []
    assert_replays(ran.finish())


# Termination by the parent


def test_terminate_requested_closes_without_running_any_code() -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            await workflow.wait_condition(lambda: workflow.time() > 1_767_225_700)
        finally:
            seen.append("cleaned up")

    ran = Run(main)
    ran.now += timedelta(days=1)  # the condition would hold now
    step = ran.send(ev.TerminateRequested("its parent closed"))
    assert [event.type for event in step.events] == ["TerminateRequested", "InstanceTerminated"]
    assert ran.closing == ev.InstanceTerminated(command=0, reason="its parent closed")
    assert seen == []
    assert_replays(ran)
    ran.machine.dispose()


def test_terminate_requested_before_the_start_closes_too() -> None:
    async def main() -> None:
        raise AssertionError("must not run")

    ran = Run(main, start=False)
    step = ran.send(ev.TerminateRequested(), ev.InstanceStarted())
    assert ran.types == ["TerminateRequested", "InstanceTerminated"]
    assert step.consumed == 1


# Misuse


def test_outside_a_workflow_it_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(NotInWorkflowError, match=r"use \.start\(\.\.\.\)"):
        square.start_child(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: square.using(on_conflict="use_existing").start_child(1), NotAllowedInWorkflowError, "on_conflict"),
        (lambda: square.using(instance_id="x" * 256).start_child(1), ValueError, "instance_id"),
        (lambda: square.start_child("x", "y"), TypeError, "square"),
        (lambda: square.start_child(float("nan")), PayloadError, "nan"),
        (lambda: square.using(parent_close="ask"), ValueError, "parent_close"),
        (lambda: square.using(retry=3), TypeError, "retry"),
        (lambda: square.using(attributes={"a": object()}).start_child(1), PayloadError, "attributes"),
        (lambda: square.using(attributes=[1]), TypeError, "attributes"),
        (lambda: square.using(queue=""), ValueError, "queue"),
        (lambda: square.using(queue="x" * 101), ValueError, "queue"),
        (lambda: square.using(subject=Effect()), ValueError, "saved"),
        (lambda: square.using(subject="order 7"), TypeError, "subject"),
    ],
)
def test_wrong_calls_are_errors_at_once(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    async def main() -> None:
        with pytest.raises(error, match=message):
            call()

    assert run(main).types == ["InstanceStarted", "InstanceCompleted"]

"""Messages to other instances: decisions whose outcome is that they are stored, or why they are not."""

from __future__ import annotations

import asyncio

import pytest

from django_workflows import InstanceNotFound, InstanceNotRunning, NotInWorkflowError, PayloadError, Signal, workflow
from django_workflows.engine import events as ev

from .activities import echo
from .harness import Run, assert_replays, refused, run

word = Signal("word", str)


def test_a_signal_is_recorded_and_awaited_until_it_is_stored() -> None:
    async def main() -> str:
        await workflow.handle("other").signal(word, "hello")
        return "sent"

    ran = Run(main)
    sent = ran.events[1]
    assert isinstance(sent, ev.SignalSent)
    assert (sent.instance_id, sent.execution_id, sent.name, bytes(sent.value)) == ("other", None, "word", b'"hello"')
    assert ran.closing is None
    ran.send(ev.MessageDelivered(1))
    assert ran.result == "sent"
    assert_replays(ran)


def test_a_cancel_request_is_a_message_too() -> None:
    async def main() -> None:
        await workflow.handle("other", "execution-7").cancel("no longer wanted")

    ran = run(main)
    sent = ran.events[1]
    assert isinstance(sent, ev.CancelSent)
    assert (sent.instance_id, sent.execution_id, sent.reason) == ("other", "execution-7", "no longer wanted")


@pytest.mark.parametrize("error", [InstanceNotFound("nobody"), InstanceNotRunning("closed")])
def test_one_that_is_refused_raises_why(error: Exception) -> None:
    async def main() -> str:
        try:
            await workflow.handle("other").signal(word, "hello")
        except type(error) as found:
            return str(found)
        return "sent"

    ran = Run(main)
    ran.send(refused(1, error))
    assert ran.result == str(error)
    assert_replays(ran)


def test_an_uncaught_refusal_fails_the_sender() -> None:
    async def main() -> None:
        await workflow.handle("other").cancel()

    ran = Run(main)
    ran.send(refused(1, InstanceNotFound("nobody")))
    assert ran.failure.message == "nobody"
    assert_replays(ran)


def test_several_at_once_are_recorded_in_the_order_of_the_code() -> None:
    async def main() -> None:
        other = workflow.handle("other")
        await asyncio.gather(*(other.signal(word, text) for text in ("a", "b", "c")))

    ran = Run(main)
    assert [bytes(event.value) for event in ran.events if isinstance(event, ev.SignalSent)] == [b'"a"', b'"b"', b'"c"']
    ran.send(*(ev.MessageDelivered(number) for number in (3, 1, 2)))
    assert ran.types[-1] == "InstanceCompleted"
    assert_replays(ran)


def test_cancelling_the_await_before_it_is_recorded_takes_the_message_back() -> None:
    async def main() -> None:
        task = asyncio.create_task(workflow.handle("other").signal(word, "hello"))
        await asyncio.sleep(0)
        task.cancel()

    assert run(main).types == ["InstanceStarted", "InstanceCompleted"]


def test_cancelling_it_later_changes_nothing_for_the_addressee() -> None:
    async def main() -> str:
        try:
            await workflow.handle("other").signal(word, "hello")
        except asyncio.CancelledError:
            await echo()
        return "not awaited"

    ran = Run(main)
    ran.cancel()
    assert ran.send(ev.MessageDelivered(1)).events == [], "nobody waits to hear of it"
    ran.finish()
    assert ran.result == "not awaited"
    assert_replays(ran)


def test_a_returned_workflow_waits_for_its_messages_and_fails_with_them() -> None:
    async def main() -> str:
        asyncio.create_task(workflow.handle("other").signal(word, "hello"))  # noqa: RUF006
        await asyncio.sleep(0)
        return "returned"

    ran = Run(main)
    assert ran.closing is None
    ran.send(refused(1, InstanceNotFound("nobody")))
    assert ran.failure.message == "nobody"
    assert_replays(ran)


def test_a_signal_by_name_carries_any_json() -> None:
    async def main() -> None:
        await workflow.handle("other").signal("any name", {"a": [1, None]})
        await workflow.handle("other").signal("nothing")

    ran = run(main)
    assert [bytes(event.value) for event in ran.events if isinstance(event, ev.SignalSent)] == [
        b'{"a":[1,null]}', b"null",
    ]  # fmt: skip


def test_what_cannot_be_sent_is_an_error_where_it_is_sent() -> None:
    async def main() -> None:
        with pytest.raises(PayloadError, match="signal 'word'"):
            await workflow.handle("other").signal(word, float("nan"))  # type: ignore[arg-type]
        with pytest.raises(PayloadError, match="reason"):
            await workflow.handle("other").cancel("\ud800")
        with pytest.raises(ValueError, match="instance_id"):
            workflow.handle("x" * 256)
        with pytest.raises(TypeError, match="instance_id"):
            workflow.handle(17)  # type: ignore[arg-type]

    assert run(main).types == ["InstanceStarted", "InstanceCompleted"]


def test_outside_a_workflow_it_is_an_error() -> None:
    with pytest.raises(NotInWorkflowError, match=r"workflow\.handle\(\)"):
        workflow.handle("other")

"""The workflow that follows a drawn plan, and its activities."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django_workflows import RetryPolicy, Signal, WorkflowClass, activity, workflow
from tests.testapp.models import Effect

note: Signal[str] = Signal("note", str)
tokens: list[str] = []  # of deferred activities
during_activity: list[Callable[[str, int], None]] = []  # what the simulation does in the middle of one

_PATIENT = RetryPolicy(max_attempts=None, initial_interval=timedelta(seconds=0.2), jitter=0)
_IMPATIENT = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=0.2), jitter=0)


class NotThisTime(Exception):
    """What an activity raises that is to be tried again."""


class GivesUp(Exception):
    """What a plan raises to fail."""


def _happens(tag: str) -> str:
    """Do what every activity does; return the key of its effects."""
    info = activity.info()
    key = f"{info.execution_id}:{tag}"
    for do in during_activity:
        do(key, info.attempt)
    return key


@activity(name="simulation.compute", retry=_PATIENT)
def compute(tag: str) -> str:
    return _happens(tag)


@activity(name="simulation.apply_once", atomic=True, retry=_PATIENT)
def apply_once(tag: str) -> str:
    key = _happens(tag)
    Effect.objects.create(key=key)
    return key


@activity(name="simulation.apply_with_trouble", atomic=True, retry=_IMPATIENT)
def apply_with_trouble(tag: str, failures: int) -> str:
    """Fails after it has written, so many times."""
    key = _happens(tag)
    Effect.objects.create(key=key)
    if activity.info().attempt <= failures:
        raise NotThisTime(tag)
    return key


@activity(name="simulation.hurry", retry=_IMPATIENT)
def hurry(tag: str) -> str:
    activity.heartbeat(tag)
    return _happens(tag)


@activity(name="simulation.defer", retry=_IMPATIENT, start_to_close_timeout=timedelta(seconds=6))
def defer(tag: str) -> str:
    tokens.append(activity.defer())
    return _happens(tag)


@workflow(name="simulation.Plan")
class Plan(WorkflowClass):
    """Follows a plan: a list of steps, each a name with arguments."""

    async def run(self, steps: list[Any]) -> int:
        self.done = 0
        await self.follow(steps)
        return self.done

    async def follow(self, steps: list[Any]) -> None:
        for name, *arguments in steps:
            try:
                await getattr(self, f"do_{name}")(*arguments)
            except GivesUp:
                raise
            except Exception:  # of an activity, a child, a message: the plan goes on
                continue
            self.done += 1

    async def do_compute(self, tag: str) -> None:
        await compute(tag)

    async def do_apply(self, tag: str) -> None:
        await apply_once(tag)

    async def do_struggle(self, tag: str, failures: int) -> None:
        await apply_with_trouble(tag, failures)

    async def do_hurry(self, tag: str, limit: str, seconds: float) -> None:
        await hurry.using(**{limit: timedelta(seconds=seconds)})(tag)

    async def do_defer(self, tag: str) -> None:
        await defer(tag)

    async def do_sleep(self, seconds: float) -> None:
        await workflow.sleep(seconds)

    async def do_listen(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            await note.receive()

    async def do_both(self, first: list[Any], second: list[Any]) -> None:
        await asyncio.gather(self.follow(first), self.follow(second))

    async def do_change_mind(self, seconds: float, steps: list[Any]) -> None:
        async with asyncio.timeout(seconds):
            await self.follow(steps)

    async def do_clean_up(self, steps: list[Any], after: list[Any]) -> None:
        try:
            await self.follow(steps)
        finally:
            await self.follow(after)

    async def do_child(self, manner: str, options: dict[str, Any], steps: list[Any], seconds: float) -> None:
        child = Plan.using(**options).start_child(steps)
        if manner == "leave":
            return
        if manner == "signal":
            await child.signal(note, f"{workflow.info().execution_id} to its child {child.execution_id}")
        if manner == "cancel":
            await workflow.sleep(seconds)
            child.cancel()
        await child

    async def do_tell(self, instance_id: str, tag: str) -> None:
        await workflow.handle(instance_id).signal(note, f"{workflow.info().execution_id} {tag}")

    async def do_stop(self, instance_id: str) -> None:
        await workflow.handle(instance_id).cancel("because of a plan")

    async def do_mark(self, tag: str) -> None:
        workflow.set_attributes(mark=tag)

    async def do_again(self, steps: list[Any]) -> None:
        workflow.continue_as_new(steps)

    async def do_fail(self) -> None:
        raise GivesUp(f"in attempt {workflow.info().attempt}")

    @workflow.update
    async def ask(self, tag: str, seconds: float) -> str:
        if seconds:
            await workflow.sleep(seconds)
        return tag

    @ask.validator
    def check_ask(self, tag: str, seconds: float) -> None:
        if seconds > 1:
            raise ValueError("too long")

"""`workflow`: the decorator, and the namespace of what workflow code may call."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, NoReturn, ParamSpec, TypeVar, get_type_hints, overload

import msgspec

from django_workflows import payloads
from django_workflows.engine.context import current_machine, require_machine
from django_workflows.engine.ending import ContinueAsNewRequest
from django_workflows.engine.loop import DurableTimerHandle
from django_workflows.engine.steps import InstanceInfo
from django_workflows.registry import WorkflowDefinition, workflows

from .logger import WorkflowLogger, logger
from .workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Delay = timedelta | float


def _seconds(delay: Delay) -> float:
    return delay.total_seconds() if isinstance(delay, timedelta) else delay


class WorkflowNamespace:
    """Decorates `async def` functions as workflows, and holds what workflow code may call."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...

    @overload
    def __call__(
        self, *, name: str | None = None, queue: str | None = None, version: str = ""
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...

    def __call__(
        self, function: Any = None, *, name: str | None = None, queue: str | None = None, version: str = ""
    ) -> Any:
        """Register a workflow; usable with and without arguments."""

        def decorate(function: Callable[..., Any]) -> Workflow[Any, Any]:
            return Workflow(workflows.add(WorkflowDefinition(function, name, queue, version)))

        return decorate if function is None else decorate(function)

    @property
    def logger(self) -> WorkflowLogger:
        """A logger that is silent while replaying."""
        return logger

    def now(self) -> datetime:
        """Return the time of the current step, aware and in UTC; the same on replay."""
        return require_machine("workflow.now()").now

    def time(self) -> float:
        """Return the time of the current step in seconds since 1970, as `time.time()` does."""
        return require_machine("workflow.time()").time()

    def random(self) -> random.Random:
        """Return the instance's random generator, seeded so that it repeats on replay."""
        return require_machine("workflow.random()").random

    def uuid4(self) -> uuid.UUID:
        """Return a random UUID that is the same on replay."""
        return uuid.UUID(int=self.random().getrandbits(128), version=4)

    def info(self) -> InstanceInfo:
        """Return what the instance may know about itself."""
        machine = require_machine("workflow.info()")
        return msgspec.structs.replace(machine.info, history_length=machine.history_length)

    def version(self) -> str:
        """Return the `version=` of the definition that started this instance."""
        return require_machine("workflow.version()").info.version

    def is_replaying(self) -> bool:
        """Tell whether recorded history is being replayed; False outside a workflow. Never decide by it."""
        machine = current_machine()
        return machine is not None and machine.is_replaying

    def side_effect(self, function: Callable[[], T]) -> T:
        """Run a quick local function once and return its recorded value ever after.

        The value is decoded to the function's return annotation, live and on replay alike.
        """
        machine = require_machine("workflow.side_effect()")
        what = f"side effect in {machine.info.workflow}"
        recorded = machine.side_effect(lambda: payloads.encode(function(), what=what, limit=machine.payload_limit))
        try:
            hint = get_type_hints(function).get("return", Any)
        except (NameError, TypeError):
            hint = Any
        value: T = payloads.decode(recorded, hint, what=what)
        return value

    async def sleep(self, delay: Delay) -> None:
        """Wait for a durable timer; `delay` in seconds or as a timedelta, zero and less only yield."""
        await self.timer(delay)

    async def timer(self, delay: Delay, *, name: str = "") -> None:
        """Wait for a durable timer that carries a name for people to read."""
        machine = require_machine("workflow.timer()")
        seconds = _seconds(delay)
        if seconds <= 0:
            return await asyncio.sleep(0)
        future = machine.loop.create_future()
        when = machine.time() + seconds
        handle = DurableTimerHandle(when, _finish, (future,), machine.loop, None)
        machine.start_timer_at(when, handle, name)
        try:
            await future
        finally:
            handle.cancel()

    async def wait_condition(self, predicate: Callable[[], object], timeout: Delay | None = None) -> None:
        """Wait until `predicate()` is true; it is looked at whenever all coroutines wait.

        Raises TimeoutError after `timeout` seconds. An exception of the predicate is raised here.
        """
        machine = require_machine("workflow.wait_condition()")
        if predicate():
            return
        async with asyncio.timeout(None if timeout is None else _seconds(timeout)):
            # Others that were woken at the same moment may have run first and made it false again.
            while not predicate():
                await machine.wait_until(predicate)

    def continue_as_new(self, *args: Any, **kwargs: Any) -> NoReturn:
        """End this execution and start another one with a fresh history, the same instance_id and other arguments.

        Signals that were not received go with it. Also works in a background task.
        """
        machine = require_machine("workflow.continue_as_new()")
        definition = workflows.get(machine.info.workflow)
        assert definition is not None
        payload = definition.signature.encode_arguments(args, kwargs, machine.payload_limit)
        raise ContinueAsNewRequest(payload, definition.version)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


workflow = WorkflowNamespace()

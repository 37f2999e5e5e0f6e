"""`workflow`: the decorator, and the namespace of what workflow code may call."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar, get_type_hints, overload

import msgspec

from django_workflows import payloads
from django_workflows.engine.channels import Channel
from django_workflows.engine.context import current_machine, require_machine
from django_workflows.engine.ending import ContinueAsNewRequest
from django_workflows.engine.loop import DurableTimerHandle
from django_workflows.engine.steps import InstanceInfo
from django_workflows.registry import WorkflowDefinition, workflows
from django_workflows.retries import RetryPolicy

from .children import Messages
from .handlers import HandlerDecorators
from .logger import WorkflowLogger, logger
from .select import select
from .versioning import Attributes, Versioning
from .workflow import Workflow
from .workflow_class import register_class

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Delay = timedelta | float


def _seconds(delay: Delay) -> float:
    return delay.total_seconds() if isinstance(delay, timedelta) else delay


class WorkflowDecorator(Protocol):
    """The type of `@workflow(...)` with options: keeps the decorated function's signature, or the class."""

    @overload
    def __call__(self, target: type[T], /) -> type[T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, target: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...

    def __call__(self, target: Any, /) -> Any: ...


class WorkflowNamespace(HandlerDecorators, Messages, Versioning, Attributes):
    """Decorates functions and classes as workflows, and holds what workflow code may call."""

    @overload
    def __call__(self, target: type[T], /) -> type[T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, target: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...

    @overload
    def __call__(
        self, *, name: str | None = None, queue: str | None = None, version: str = "", aliases: Iterable[str] = (),
        retry: RetryPolicy | None = None,
    ) -> WorkflowDecorator: ...  # fmt: skip

    def __call__(
        self, target: Any = None, *, name: str | None = None, queue: str | None = None, version: str = "",
        aliases: Iterable[str] = (), retry: RetryPolicy | None = None,
    ) -> Any:  # fmt: skip
        """Register a workflow; usable with and without arguments.

        `aliases` are names that it had before: instances started under them go on. `retry`: the policy by which a
        failed execution is followed by another one.
        """

        def decorate(target: Any) -> Any:
            if isinstance(target, type):
                return register_class(target, name, queue, version, aliases, retry)
            return Workflow(workflows.add(WorkflowDefinition(target, name, queue, version, aliases, retry)))

        return decorate if target is None else decorate(target)

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

    def uuid7(self) -> uuid.UUID:
        """Return a UUID that sorts by the time of the step and is the same on replay (RFC 9562, section 5.7)."""
        machine = require_machine("workflow.uuid7()")
        milliseconds = int(machine.time() * 1000)
        value = milliseconds << 80 | 0x7 << 76 | machine.random.getrandbits(12) << 64
        return uuid.UUID(int=value | 0b10 << 62 | machine.random.getrandbits(62))

    def info(self) -> InstanceInfo:
        """Return what the instance may know about itself."""
        machine = require_machine("workflow.info()")
        length = machine.history_length
        suggested = 0 < machine.suggest_at <= length
        return msgspec.structs.replace(machine.info, history_length=length, continue_as_new_suggested=suggested)

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
                await machine.conditions.wait_until(predicate)

    Channel = Channel
    select = staticmethod(select)

    def continue_as_new(self, *args: Any, **kwargs: Any) -> NoReturn:
        """End this execution and start another one with a fresh history, the same instance_id and other arguments.

        Signals that were not received go with it. Also works in a background task.
        """
        machine = require_machine("workflow.continue_as_new()")
        machine.require_deciding("continue_as_new")
        definition = workflows.get(machine.info.workflow)
        assert definition is not None
        payload = definition.signature.encode_arguments(args, kwargs, machine.payload_limit)
        raise ContinueAsNewRequest(payload, definition.version)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


workflow = WorkflowNamespace()

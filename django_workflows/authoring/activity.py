"""The activity object: await it inside a workflow, and a worker runs it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack

from django_workflows.engine.commands import calling_location
from django_workflows.engine.context import current_machine
from django_workflows.engine.events import ActivityScheduled
from django_workflows.engine.machine import Machine
from django_workflows.exceptions import NotInWorkflowError, RegistrationError
from django_workflows.payloads import Raw
from django_workflows.registry import ActivityDefinition, ActivityOptions, activities, app_label
from django_workflows.retries import RetryPolicy

from . import propagation

P = ParamSpec("P")
R = TypeVar("R")


class ActivityCallOptions(TypedDict, total=False):
    """The options of one call, as `using()` takes them; what they mean: docs/timeouts-and-retries.md."""

    queue: str | None
    retry: RetryPolicy
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    schedule_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None


class ActivityArguments(ActivityCallOptions, total=False):
    """What `@activity(...)` takes."""

    name: str | None
    aliases: Iterable[str]
    atomic: bool | str


class Activity(Generic[P, R]):
    """A registered activity.

    Example:
        receipt = await charge_card.using(queue="payments")(order_id, cents)
    """

    def __init__(self, definition: ActivityDefinition, options: ActivityOptions | None = None) -> None:
        self.definition = definition
        self.options = options or definition.options
        self.__doc__ = definition.function.__doc__
        self.__name__ = definition.function.__name__

    @property
    def name(self) -> str:
        """The registered name."""
        return self.definition.name

    def using(self, **options: Unpack[ActivityCallOptions]) -> Activity[P, R]:
        """Return a copy with other options: `queue`, `retry` and the four timeouts, each a timedelta or None.

        Raises TypeError for any other name, TypeError or ValueError for a timeout that is none.
        """
        return Activity(self.definition, replace(self.options, **options))

    @property
    def call(self) -> Callable[P, Any]:
        """The bare function, run directly in the calling thread or loop."""
        return self.definition.callable()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Schedule the activity once awaited and wait for its result.

        Raises TypeError or PayloadError at once for arguments that do not fit, NotInWorkflowError outside a workflow.
        """
        machine = current_machine()
        if machine is None:
            raise NotInWorkflowError(
                f"activity {self.name} was called outside a workflow: use .call(...) to run the bare function"
            )
        payload = self.definition.signature.encode_arguments(args, kwargs, machine.payload_limit)
        coroutine = self._run(machine, payload, calling_location())
        coroutine.__qualname__ = self.name  # type: ignore[attr-defined]  # what Python's "never awaited" warning shows
        return coroutine

    async def _run(self, machine: Machine, payload: bytes, location: str) -> R:
        result = await machine.decide_and_wait(
            ActivityScheduled(
                command=machine.next_command(),
                name=self.definition.name,
                input=Raw(payload),
                queue=self.options.queue or machine.info.queue,
                options=self._stored_options(machine),
            ),
            location,
        )
        value: R = self.definition.signature.decode_result(result)
        return value

    def _stored_options(self, machine: Machine) -> dict[str, Any]:
        context = propagation.capture_in(machine)
        return {**self.options.stored, "context": context} if context else self.options.stored


class ActivityMethod(Generic[P, R]):
    """A method that is an activity: on the class the activity itself, on an object the plain bound method."""

    def __init__(
        self, function: Callable[..., Any], options: ActivityOptions, name: str | None, *, atomic: bool | str,
        aliases: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self._function, self._options, self._name = function, options, name
        self._atomic, self._aliases = atomic, aliases

    def __set_name__(self, owner: type, name: str) -> None:
        registered = self._name or f"{app_label(owner.__module__)}.{owner.__name__}.{name}"
        self.definition = activities.add(
            ActivityDefinition(
                self._function, registered, self._options, atomic=self._atomic, owner=owner, aliases=self._aliases
            )
        )
        self._activity: Activity[P, R] = Activity(self.definition)

    def __get__(self, instance: object | None, owner: type) -> Activity[P, R]:
        if instance is None:
            return self._activity
        # Direct calls on an object run the method; the cast keeps the one signature that type checkers can express.
        bound: Any = self._function.__get__(instance)
        return bound  # type: ignore[no-any-return]


def register_activities(*objects: object) -> None:
    """Provide the objects whose `@activity.method` methods this process can run.

    Call it where workers see it, such as at the end of the `workflows` module. Raises RegistrationError for an object
    without activity methods, and when another object of the class is registered already.
    """
    for instance in objects:
        methods = [
            method
            for cls in type(instance).__mro__
            for method in vars(cls).values()
            if isinstance(method, ActivityMethod)
        ]
        if not methods:
            raise RegistrationError(
                f"expected an object with @activity.method methods, found {type(instance).__name__!r} without any"
            )
        for method in methods:
            if method.definition.instance not in (None, instance):
                raise RegistrationError(f"{method.definition.name}: another object is registered for it already")
            method.definition.instance = instance

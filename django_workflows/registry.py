"""The definitions of workflows and activities, by their registered names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, TypeVar

from .exceptions import RegistrationError
from .payloads import CallSignature
from .retries import DEFAULT_RETRY, RetryPolicy

TIMEOUTS = ("schedule_to_start", "start_to_close", "schedule_to_close", "heartbeat")

_LONGEST_TIMEOUT = timedelta(days=36_525)


@dataclass(frozen=True)
class ActivityOptions:
    """How one activity call is run; `using()` replaces single fields.

    Timeouts are timedeltas, or None for no limit. `schedule_to_start` bounds an attempt's wait for a worker,
    `start_to_close` its run, `heartbeat` the time between two heartbeats, `schedule_to_close` all attempts together.
    """

    queue: str | None = None
    retry: RetryPolicy = DEFAULT_RETRY
    schedule_to_start_timeout: timedelta | None = None
    start_to_close_timeout: timedelta | None = None
    schedule_to_close_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.retry, RetryPolicy):
            raise TypeError(
                f"expected retry to be a RetryPolicy, found {self.retry!r}; RetryPolicy(max_attempts=1) tries once"
            )
        for name in TIMEOUTS:
            _check_timeout(f"{name}_timeout", getattr(self, f"{name}_timeout"))

    @cached_property
    def stored(self) -> dict[str, Any]:
        """The options as JSON, kept in the history event and the activity task."""
        stored: dict[str, Any] = {"retry": self.retry.to_json()}
        for name in TIMEOUTS:
            timeout: timedelta | None = getattr(self, f"{name}_timeout")
            if timeout is not None:
                stored[name] = timeout.total_seconds()
        return stored


def _check_timeout(name: str, timeout: object) -> None:
    expected = f"expected {name} to be a timedelta above 0 and up to 100 years, or None, found {timeout!r}"
    if timeout is None:
        return
    if not isinstance(timeout, timedelta):
        raise TypeError(expected)
    if not timedelta(0) < timeout <= _LONGEST_TIMEOUT:
        raise ValueError(expected)


class Definition:
    """What workflows and activities have in common: a name, a function and its signature."""

    kind = "definition"

    def __init__(self, function: Callable[..., Any], name: str | None, *, skip_self: bool = False) -> None:
        self.function = function
        self.name = name or default_name(function)
        self.signature = CallSignature.of(function, name=self.name, skip_self=skip_self)

    @property
    def location(self) -> str:
        code = inspect.unwrap(self.function).__code__
        return f"{code.co_filename}:{code.co_firstlineno}"


class WorkflowDefinition(Definition):
    """A registered workflow."""

    kind = "workflow"

    def __init__(self, function: Callable[..., Any], name: str | None, queue: str | None, version: str) -> None:
        if not inspect.iscoroutinefunction(function):
            raise RegistrationError(f"expected an async function for @workflow, found {function!r}; write `async def`")
        super().__init__(function, name)
        self.queue = queue
        self.version = version


class ActivityDefinition(Definition):
    """A registered activity: a function, or a method of an object that `register_activities` provides."""

    kind = "activity"

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None,
        options: ActivityOptions,
        *,
        atomic: bool | str,
        owner: type | None,
    ) -> None:
        super().__init__(function, name, skip_self=owner is not None)
        self.options = options
        self.atomic = bool(atomic)
        self.atomic_database = atomic if isinstance(atomic, str) else None
        self.is_async = inspect.iscoroutinefunction(function)
        self.owner = owner
        self.instance: object | None = None
        if atomic and self.is_async:
            raise RegistrationError(
                f"{self.name}: expected a plain function for an atomic activity, found an async one; "
                "Django's transactions have no async form, write `def`"
            )
        _check_atomic_database(self)

    @property
    def is_available(self) -> bool:
        """Whether this process can run it: a method needs its object."""
        return self.owner is None or self.instance is not None

    def callable(self) -> Callable[..., Any]:
        if self.owner is None:
            return self.function
        bound: Callable[..., Any] = self.function.__get__(self.instance)
        return bound


D = TypeVar("D", bound=Definition)


class Names(Generic[D]):
    """Definitions of one kind; a name is taken once."""

    def __init__(self) -> None:
        self._definitions: dict[str, D] = {}

    def add(self, definition: D) -> D:
        present = self._definitions.get(definition.name)
        # A module that is imported twice (autoreload, `python -m`) defines the same function again.
        if present is not None and present.location != definition.location:
            raise RegistrationError(
                f"two {definition.kind} definitions are named {definition.name!r}: {present.location} and "
                f"{definition.location}; give one of them another name="
            )
        self._definitions[definition.name] = definition
        return definition

    def get(self, name: str) -> D | None:
        return self._definitions.get(name)

    def __iter__(self) -> Any:
        return iter(list(self._definitions.values()))  # a worker's thread may look while another one registers


workflows: Names[WorkflowDefinition] = Names()
activities: Names[ActivityDefinition] = Names()


_atomic_database: str | None = None


def set_atomic_database(alias: str) -> None:
    """Name the database of the workflow tables, the only one that atomic activities can write with their result."""
    global _atomic_database
    _atomic_database = alias
    for definition in activities:
        _check_atomic_database(definition)


def _check_atomic_database(definition: ActivityDefinition) -> None:
    alias = definition.atomic_database
    if alias is not None and _atomic_database is not None and alias != _atomic_database:
        raise RegistrationError(
            f"{definition.name}: expected atomic to name {_atomic_database!r}, the database of the workflow tables, "
            f"found {alias!r}; writes to another database cannot commit together with the result"
        )


def app_label(module: str) -> str:
    """Return the app label of a module: the package that holds its `workflows` module, else its last package."""
    parts = module.split(".")
    if "workflows" in parts[1:]:
        parts = parts[: parts.index("workflows", 1)]
    elif len(parts) > 1:
        parts = parts[:-1]
    return parts[-1]


def default_name(function: Callable[..., Any]) -> str:
    """Return `app_label.function_name`, the registered name of a function that was given none."""
    return f"{app_label(function.__module__)}.{function.__qualname__.replace('<locals>.', '')}"

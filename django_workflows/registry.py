"""The definitions of workflows and activities, by their registered names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from .exceptions import RegistrationError, UnknownHandlerError, UnknownWorkflowError
from .payloads import CallSignature
from .retries import DEFAULT_RETRY, RetryPolicy

HandlerKind = Literal["signal", "query", "update"]

TIMEOUTS = ("schedule_to_start", "start_to_close", "schedule_to_close", "heartbeat")

LONGEST_TIMEOUT = timedelta(days=36_525)


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
    if not timedelta(0) < timeout <= LONGEST_TIMEOUT:
        raise ValueError(expected)


class Definition:
    """What workflows and activities have in common: a name, a function and its signature."""

    kind = "definition"

    def __init__(
        self, function: Callable[..., Any], name: str, aliases: Iterable[str] = (), *, skip_self: bool = False
    ) -> None:
        self.function = function
        self.name = name
        self.aliases = _checked_aliases(name, aliases)
        self.signature = CallSignature.of(function, name=self.name, skip_self=skip_self)

    @property
    def origin(self) -> str:
        """Where it is defined, in words that tell one definition from another."""
        return self.location

    @property
    def location(self) -> str:
        code = inspect.unwrap(self.function).__code__
        return f"{code.co_filename}:{code.co_firstlineno}"


@dataclass(frozen=True)
class Handler:
    """A method of a workflow class that answers a message; `validator` is that of an update."""

    name: str
    function: Callable[..., Any]
    signature: CallSignature
    validator: Callable[..., Any] | None = None


HandlerTables = Mapping[HandlerKind, Mapping[str, Handler]]  # by the names of their messages


class WorkflowDefinition(Definition):
    """A registered workflow: a function, or a class whose `run` it is."""

    kind = "workflow"

    def __init__(
        self, function: Callable[..., Any], name: str | None = None, queue: str | None = None, version: str = "",
        aliases: Iterable[str] = (), retry: RetryPolicy | None = None, *, owner: type | None = None,
        handlers: HandlerTables | None = None,
    ) -> None:  # fmt: skip
        if not inspect.iscoroutinefunction(function):
            raise RegistrationError(f"expected an async function for @workflow, found {function!r}; write `async def`")
        super().__init__(function, name or default_name(owner or function), aliases, skip_self=owner is not None)
        self.queue = queue
        self.version = version
        self.retry = retry
        self.owner = owner
        self.handlers = handlers or {}
        self._init_takes_arguments = owner is not None and _init_takes_arguments(owner, self)

    @property
    def origin(self) -> str:
        # A class that inherits `run` shares the location.
        return self.location if self.owner is None else f"{self.owner.__qualname__} with run at {self.location}"

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[object, Callable[..., Any]]:
        """Return the object of a workflow class, None for a function, and what to call with the arguments."""
        if self.owner is None:
            return None, self.function
        instance = self.owner(*args, **kwargs) if self._init_takes_arguments else self.owner()
        return instance, self.function.__get__(instance)

    def find_handler(self, kind: HandlerKind, name: str) -> Handler:
        """Return a handler of a workflow class; raises UnknownHandlerError."""
        table = self.handlers.get(kind, {})
        if (handler := table.get(name)) is not None:
            return handler
        known = ", ".join(sorted(table)) or "none"
        raise UnknownHandlerError(
            f"expected a handler of {kind} {name!r} in the workflow {self.name}, found "
            f"{known if self.owner is not None else 'that it is a function, not a class'}"
        )


def _init_takes_arguments(owner: type, definition: WorkflowDefinition) -> bool:
    """Tell whether a workflow class is made with the arguments of `run`; raises RegistrationError for other ones."""
    signature, of_run = inspect.signature(owner), definition.signature.signature
    if signature.parameters and list(signature.parameters) == list(of_run.parameters):
        return True
    try:
        signature.bind()
    except TypeError:
        raise RegistrationError(
            f"{definition.name}: expected __init__ to need no arguments, or to have the parameters of run{of_run}, "
            f"found {signature}"
        ) from None
    return False


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
        aliases: Iterable[str] = (),
    ) -> None:
        super().__init__(function, name or default_name(function), aliases, skip_self=owner is not None)
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
    """Definitions of one kind; a name is taken once, be it a definition's own or its alias."""

    def __init__(self) -> None:
        self._definitions: dict[str, D] = {}
        self._aliases: dict[str, D] = {}

    def add(self, definition: D) -> D:
        for name in (definition.name, *definition.aliases):
            self._refuse_taken(name, definition)
        self._definitions[definition.name] = definition
        self._aliases.update(dict.fromkeys(definition.aliases, definition))
        return definition

    def get(self, name: str) -> D | None:
        """Return the definition that has this name now, or had it before it was renamed."""
        return self._definitions.get(name) or self._aliases.get(name)

    def _refuse_taken(self, name: str, definition: D) -> None:
        present = self.get(name)
        # A module that is imported twice (autoreload, `python -m`) defines the same function again.
        if present is not None and present.origin != definition.origin:
            raise RegistrationError(
                f"two {definition.kind} definitions are named {name!r}: {present.origin} and "
                f"{definition.origin}; give one of them another name="
            )

    def __iter__(self) -> Any:
        return iter(list(self._definitions.values()))  # a worker's thread may look while another one registers


workflows: Names[WorkflowDefinition] = Names()
activities: Names[ActivityDefinition] = Names()


def get_workflow(name: str) -> WorkflowDefinition:
    """Return a registered workflow; raises UnknownWorkflowError."""
    definition = workflows.get(name)
    if definition is None:
        raise UnknownWorkflowError(
            f"no workflow is registered as {name!r} in this process; was it renamed, or is its app missing from "
            "INSTALLED_APPS here?"
        )
    return definition


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


def default_name(named: Callable[..., Any]) -> str:
    """Return `app_label.function_name`, the registered name of a function or class that was given none."""
    return f"{app_label(named.__module__)}.{named.__qualname__.replace('<locals>.', '')}"


def _checked_aliases(name: str, aliases: Iterable[str]) -> tuple[str, ...]:
    if isinstance(aliases, str):
        raise RegistrationError(f"{name}: expected aliases to be a list of names, found the text {aliases!r}")
    return tuple(aliases)

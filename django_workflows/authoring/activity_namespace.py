"""`activity`: the decorator, and the namespace of what activity code may call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from django_workflows.registry import ActivityDefinition, ActivityOptions, activities

from .activity import Activity, ActivityArguments, ActivityMethod
from .attempt import ActivityInfo, require_attempt

P = ParamSpec("P")
R = TypeVar("R")


class ActivityNamespace:
    """Decorates functions as activities, and holds what activity code may call."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Activity[P, R]: ...

    @overload
    def __call__(self, **arguments: Unpack[ActivityArguments]) -> ActivityDecorator: ...

    def __call__(self, function: Any = None, **arguments: Any) -> Any:
        """Register an activity; usable with and without arguments.

        `name`: the registered name. `atomic=True`: its writes to the workflows' database and its result commit
        together, so they happen once; a database alias instead of True says which database is meant, and another than
        the workflows' is refused. The other arguments are the options that `using()` takes.
        """
        name, atomic, options = _split(arguments)

        def decorate(function: Callable[..., Any]) -> Activity[Any, Any]:
            return Activity(activities.add(ActivityDefinition(function, name, options, atomic=atomic, owner=None)))

        return decorate if function is None else decorate(function)

    @overload
    def method(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> ActivityMethod[P, R]: ...

    @overload
    def method(self, function: Callable[Concatenate[Any, P], R], /) -> ActivityMethod[P, R]: ...

    @overload
    def method(
        self, **arguments: Unpack[ActivityArguments]
    ) -> Callable[[Callable[Concatenate[Any, P], Any]], ActivityMethod[P, Any]]: ...

    def method(self, function: Any = None, **arguments: Any) -> Any:
        """Register a method as an activity; `register_activities(object)` provides its `self`."""
        name, atomic, options = _split(arguments)

        def decorate(function: Callable[..., Any]) -> ActivityMethod[Any, Any]:
            return ActivityMethod(function, options, name, atomic=atomic)

        return decorate if function is None else decorate(function)

    def info(self) -> ActivityInfo:
        """Return what the running attempt may know about itself."""
        return require_attempt("activity.info()").info

    def is_cancelled(self) -> bool:
        """Tell whether the running attempt was cancelled; a long sync activity asks now and then."""
        return require_attempt("activity.is_cancelled()").cancelled.is_set()


def _split(arguments: dict[str, Any]) -> tuple[str | None, bool | str, ActivityOptions]:
    name, atomic = arguments.pop("name", None), arguments.pop("atomic", False)
    return name, atomic, ActivityOptions(**arguments)


class ActivityDecorator:
    """The type of `@activity(...)` with options: keeps the decorated function's signature."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Activity[P, R]: ...

    def __call__(self, function: Any, /) -> Any:
        raise NotImplementedError("only a type: activity(...) returns a plain function")


activity = ActivityNamespace()

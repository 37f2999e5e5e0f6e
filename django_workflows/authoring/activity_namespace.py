"""`activity`: the decorator, and the namespace of what activity code may call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from asgiref.sync import sync_to_async

from django_workflows.registry import ActivityDefinition, ActivityOptions, activities

from .activity import Activity, ActivityArguments, ActivityMethod
from .attempt import ActivityInfo, require_attempt
from .runtime import get_client

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

        `name`: the registered name. `aliases`: names that it had before, under which tasks may still be waiting.
        `atomic=True`: its writes to the workflows' database and its result commit together, so they happen once; a
        database alias instead of True says which database is meant, and another than the workflows' is refused. The
        other arguments are the options that `using()` takes.
        """
        definition, options = _split(arguments)

        def decorate(function: Callable[..., Any]) -> Activity[Any, Any]:
            return Activity(activities.add(ActivityDefinition(function, options=options, owner=None, **definition)))

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
        definition, options = _split(arguments)

        def decorate(function: Callable[..., Any]) -> ActivityMethod[Any, Any]:
            return ActivityMethod(function, options, **definition)

        return decorate if function is None else decorate(function)

    def info(self) -> ActivityInfo:
        """Return what the running attempt may know about itself."""
        return require_attempt("activity.info()").info

    def is_cancelled(self) -> bool:
        """Tell whether the running attempt was cancelled; a long sync activity asks now and then."""
        return require_attempt("activity.is_cancelled()").is_cancelled

    def heartbeat(self, *details: Any) -> None:
        """Say that the running attempt is alive and, with `details`, how far it has come.

        Quick, so that a loop may call it in each round: kept in memory, and written about once a second. The next
        attempt finds the last details, as plain JSON data, in `activity.info().heartbeat_details`; a call without
        details keeps those of before. Raises PayloadError for details that cannot be stored, and, once, CancelledError
        in an attempt that was cancelled or has timed out, if its code runs in a thread.
        """
        require_attempt("activity.heartbeat()").heartbeat(details)

    def defer(self) -> str:
        """Leave the activity open when the function returns, and return a token to complete it with.

        The token is text that is safe in a URL. Whoever has it may end the activity: keep it as a password is kept.
        What the function returns is ignored; if it raises, the attempt has failed and the token is void. Raises
        NotAllowedInActivityError in an atomic activity.

        Example:
            token = activity.defer()
            requests.post(PRINTER, {"document": url, "callback": f"https://example.com/printed/{token}/"})
        """
        return require_attempt("activity.defer()").defer()

    def complete(self, token: str, value: Any = None) -> None:
        """End a deferred activity with its result, in the caller's transaction; from anywhere, such as a view.

        Raises InvalidActivityToken, AttemptNotRunning for an attempt that is over, InstanceNotRunning or
        InstanceNotFound for an instance that is closed or gone, and PayloadError for a value that is not what the
        activity's annotation says. Of two calls at the same time both may succeed; the first to commit counts.
        """
        get_client().complete_activity(token, value)

    async def acomplete(self, token: str, value: Any = None) -> None:
        """Complete from async code; see `complete`."""
        await sync_to_async(self.complete)(token, value)

    def fail(self, token: str, error: BaseException) -> None:
        """End a deferred activity with an error, in the caller's transaction: the workflow sees it at its `await`.

        The activity is not tried again: its retry policy is not asked. Raises what `complete` raises.
        """
        get_client().fail_activity(token, error)

    async def afail(self, token: str, error: BaseException) -> None:
        """Fail from async code; see `fail`."""
        await sync_to_async(self.fail)(token, error)


def _split(arguments: dict[str, Any]) -> tuple[dict[str, Any], ActivityOptions]:
    """Part what belongs to the definition from the options of a call."""
    own = {"name": None, "atomic": False, "aliases": ()}
    definition = {name: arguments.pop(name, default) for name, default in own.items()}
    return definition, ActivityOptions(**arguments)


class ActivityDecorator:
    """The type of `@activity(...)` with options: keeps the decorated function's signature."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Activity[P, R]: ...

    def __call__(self, function: Any, /) -> Any:
        raise NotImplementedError("only a type: activity(...) returns a plain function")


activity = ActivityNamespace()

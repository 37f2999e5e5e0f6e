"""Handlers: the methods of a workflow class that answer signals, queries and updates, and how they are declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from django_workflows.engine.context import require_machine
from django_workflows.exceptions import RegistrationError
from django_workflows.payloads import CallSignature
from django_workflows.registry import Handler, HandlerKind, HandlerTables

from .signal import Signal

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class SignalHandler(Signal[T]):
    """A signal that a method of a workflow class handles; on the class it is the signal to send.

    Example:
        @workflow.signal
        def approve(self, by: str) -> None: ...

        Order.handle("order-17").signal(Order.approve, "ann")
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.handler = _handler(function, name)
        signature = self.handler.signature.signature
        parameters = list(signature.parameters.values())
        if len(parameters) > 1 or any(parameter.kind not in _PLAIN for parameter in parameters):
            raise RegistrationError(
                f"{function.__qualname__}: expected a signal handler with one parameter or none, found "
                f"{signature}; a signal carries one value, a dataclass for more"
            )
        if any(parameter.default not in (parameter.empty, None) for parameter in parameters):
            raise RegistrationError(
                f"{function.__qualname__}: expected no default, found {signature}; a signal that is sent without a "
                "value carries null, so annotate it as optional"
            )
        super().__init__(self.handler.name)
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Callable[..., Any]: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        return self if instance is None else self.handler.function.__get__(instance)


class _CallableHandler(Generic[P, R]):
    """What queries and updates have in common: a call with arguments and an answer."""

    handler: Handler

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.handler = _handler(function, name)
        self.__doc__ = function.__doc__

    @property
    def name(self) -> str:
        """The name under which it is asked for."""
        return self.handler.name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Callable[P, Any]: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        return self if instance is None else self.handler.function.__get__(instance)


class QueryHandler(_CallableHandler[P, R]):
    """A method that answers questions about the state of an instance and changes nothing.

    Example:
        @workflow.query
        def total(self) -> int: ...

        Cart.handle("cart-17").query(Cart.total)
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        super().__init__(function, name)
        _refuse_async(function, "query", "a query answers from what is there; use an update to wait for something")


class UpdateHandler(_CallableHandler[P, R]):
    """A method that changes the state of an instance and answers whoever asked for it.

    Example:
        @workflow.update
        async def add(self, sku: str) -> int: ...

        @add.validator
        def check(self, sku: str) -> None: ...  # raises what refuses it; changes nothing

        count = Cart.handle("cart-17").update(Cart.add, "book")
    """

    def validator(self, function: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
        """Have this method look at the arguments first: what it raises rejects the update."""
        update, found = self.handler.function, _handler(function, None).signature.signature
        _refuse_async(function, "validator", "it looks at what is there, and waits for nothing")
        if self.handler.validator is not None:
            raise RegistrationError(
                f"{function.__qualname__}: expected one validator of the update {update.__qualname__}, found "
                f"{self.handler.validator.__qualname__} already"
            )
        if function.__name__ == update.__name__:
            raise RegistrationError(
                f"{function.__qualname__}: expected a validator with a name of its own, found that of its update, "
                "which it would replace in the class"
            )
        if list(found.parameters) != list(self.handler.signature.signature.parameters):
            raise RegistrationError(
                f"{function.__qualname__}: expected a validator with the parameters of its update "
                f"{self.handler.signature.signature}, found {found}"
            )
        self.handler = replace(self.handler, validator=function)
        return function

    def request(self, *args: P.args, **kwargs: P.kwargs) -> UpdateRequest[R]:
        """Return the update with its arguments, for `update_with_start`."""
        return UpdateRequest(self, args, kwargs)


@dataclass(frozen=True)
class UpdateRequest(Generic[R]):
    """An update and the arguments it is called with."""

    update: UpdateHandler[Any, R]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class SignalDecorator(Protocol):
    """The type of `@workflow.signal(name=...)`."""

    @overload
    def __call__(self, function: Callable[[Any, T], Any], /) -> SignalHandler[T]: ...

    @overload
    def __call__(self, function: Callable[[Any], Any], /) -> SignalHandler[None]: ...

    def __call__(self, function: Any, /) -> Any: ...


class QueryDecorator(Protocol):
    """The type of `@workflow.query(name=...)`."""

    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> QueryHandler[P, R]: ...


class UpdateDecorator(Protocol):
    """The type of `@workflow.update(name=...)`."""

    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> UpdateHandler[P, R]: ...

    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> UpdateHandler[P, R]: ...

    def __call__(self, function: Any, /) -> Any: ...


class HandlerDecorators:
    """The decorators of handlers, `workflow.signal`, `workflow.query` and `workflow.update`, and what concerns all."""

    def all_handlers_finished(self) -> bool:
        """Tell whether no signal or update is being handled now; the one that asks counts too.

        Example:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(self.items)
        """
        return not require_machine("workflow.all_handlers_finished()").messages.in_progress

    @overload
    def signal(self, function: Callable[[Any, T], Any], /) -> SignalHandler[T]: ...

    @overload
    def signal(self, function: Callable[[Any], Any], /) -> SignalHandler[None]: ...

    @overload
    def signal(self, *, name: str) -> SignalDecorator: ...

    def signal(self, function: Any = None, *, name: str | None = None) -> Any:
        """Have a method, plain or async, handle the signals of its name, each as it arrives, in their order."""
        return SignalHandler(function, name) if function is not None else lambda found: SignalHandler(found, name)

    @overload
    def query(self, function: Callable[Concatenate[Any, P], R], /) -> QueryHandler[P, R]: ...

    @overload
    def query(self, *, name: str) -> QueryDecorator: ...

    def query(self, function: Any = None, *, name: str | None = None) -> Any:
        """Have a plain method answer queries."""
        return QueryHandler(function, name) if function is not None else lambda found: QueryHandler(found, name)

    @overload
    def update(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> UpdateHandler[P, R]: ...

    @overload
    def update(self, function: Callable[Concatenate[Any, P], R], /) -> UpdateHandler[P, R]: ...

    @overload
    def update(self, *, name: str) -> UpdateDecorator: ...

    def update(self, function: Any = None, *, name: str | None = None) -> Any:
        """Have a method, plain or async, handle updates; what it returns or raises goes to whoever asked."""
        return UpdateHandler(function, name) if function is not None else lambda found: UpdateHandler(found, name)


_KINDS: dict[type, HandlerKind] = {SignalHandler: "signal", QueryHandler: "query", UpdateHandler: "update"}
_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def handlers_of(owner: type) -> HandlerTables:
    """Collect the handlers of a class and its bases.

    Raises RegistrationError for two of one kind and name, and for a method that hides a handler of a base.
    """
    attributes: dict[str, Any] = {}
    for cls in reversed(owner.__mro__):
        for name, attribute in vars(cls).items():
            if type(attributes.get(name)) in _KINDS and type(attribute) not in _KINDS:
                raise RegistrationError(
                    f"{cls.__qualname__}.{name}: expected a decorator, as the handler of a base has, found none"
                )
            attributes[name] = attribute
    table: dict[HandlerKind, dict[str, Handler]] = {kind: {} for kind in _KINDS.values()}
    for attribute in attributes.values():
        kind = _KINDS.get(type(attribute))
        if kind is not None:
            _add(table[kind], attribute.handler, owner, kind)
    return table


def _add(handlers: dict[str, Handler], handler: Handler, owner: type, kind: HandlerKind) -> None:
    if handler.name in handlers:
        raise RegistrationError(
            f"{owner.__qualname__}: expected one handler of {kind} {handler.name!r}, found "
            f"{handlers[handler.name].function.__name__} and {handler.function.__name__}; give one another name="
        )
    if handler.validator is not None:
        # As any method, a validator may be overridden by a subclass that keeps the update.
        handler = replace(handler, validator=getattr(owner, handler.validator.__name__, handler.validator))
    handlers[handler.name] = handler


def _handler(function: Callable[..., Any], name: str | None) -> Handler:
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if not inspect.isfunction(function) or is_generator:
        raise RegistrationError(f"expected a method, plain or async, found {function!r}")
    signature = CallSignature.of(function, name=function.__qualname__, skip_self=True)
    return Handler(name or function.__name__, function, signature)


def _refuse_async(function: Callable[..., Any], what: str, reason: str) -> None:
    if inspect.iscoroutinefunction(function):
        raise RegistrationError(
            f"{function.__qualname__}: expected a plain function as a {what}, found an async one; {reason}"
        )

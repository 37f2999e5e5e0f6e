"""Handlers: the methods of a workflow class that answer signals, queries and updates."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from django_workflows.exceptions import PayloadError, RegistrationError, UnknownHandlerError
from django_workflows.payloads import CallSignature, Raw
from django_workflows.registry import Handler, HandlerTable, WorkflowDefinition

from .logger import logger
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
        signature = CallSignature.of(function, name=function.__qualname__, skip_self=True)
        parameters = list(signature.signature.parameters.values())
        if len(parameters) > 1 or any(
            parameter.kind is not parameter.POSITIONAL_OR_KEYWORD for parameter in parameters
        ):
            raise RegistrationError(
                f"{function.__qualname__}: expected a signal handler with one parameter or none, found "
                f"{signature.signature}; a signal carries one value, a dataclass for more"
            )
        super().__init__(name or function.__name__)
        self.handler = Handler(self.name, function, signature)

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
        name = name or function.__name__
        signature = CallSignature.of(function, name=function.__qualname__, skip_self=True)
        self.handler = Handler(name, function, signature)
        self.__doc__ = function.__doc__

    @property
    def name(self) -> str:
        return self.handler.name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Callable[P, R]: ...

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
        if inspect.iscoroutinefunction(function):
            raise RegistrationError(
                f"{function.__qualname__}: expected a plain function as a query, found an async one; a query answers "
                "from what is there, use an update to wait for something"
            )
        super().__init__(function, name)


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
        if inspect.iscoroutinefunction(function):
            raise RegistrationError(
                f"{function.__qualname__}: expected a plain function as a validator, found an async one"
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


class HandlerDecorators:
    """The decorators of handlers: `workflow.signal`, `workflow.query` and `workflow.update`."""

    @overload
    def signal(self, function: Callable[[Any, T], Any], /) -> SignalHandler[T]: ...

    @overload
    def signal(self, function: Callable[[Any], Any], /) -> SignalHandler[None]: ...

    @overload
    def signal(self, *, name: str) -> Callable[[Callable[..., Any]], SignalHandler[Any]]: ...

    def signal(self, function: Any = None, *, name: str | None = None) -> Any:
        """Have a method, plain or async, handle the signals of its name, each as it arrives, in their order."""
        return SignalHandler(function, name) if function is not None else lambda found: SignalHandler(found, name)

    @overload
    def query(self, function: Callable[Concatenate[Any, P], R], /) -> QueryHandler[P, R]: ...

    @overload
    def query(self, *, name: str) -> Callable[[Callable[Concatenate[Any, P], R]], QueryHandler[P, R]]: ...

    def query(self, function: Any = None, *, name: str | None = None) -> Any:
        """Have a plain method answer queries."""
        return QueryHandler(function, name) if function is not None else lambda found: QueryHandler(found, name)

    @overload
    def update(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> UpdateHandler[P, R]: ...

    @overload
    def update(self, function: Callable[Concatenate[Any, P], R], /) -> UpdateHandler[P, R]: ...

    @overload
    def update(self, *, name: str) -> Callable[[Callable[Concatenate[Any, P], Any]], UpdateHandler[P, Any]]: ...

    def update(self, function: Any = None, *, name: str | None = None) -> Any:
        """Have a method, plain or async, handle updates; what it returns or raises goes to whoever asked."""
        return UpdateHandler(function, name) if function is not None else lambda found: UpdateHandler(found, name)


def handlers_of(owner: type) -> HandlerTable:
    """Collect the handlers of a class and its bases; raises RegistrationError for two of one kind and name."""
    attributes: dict[str, Any] = {}
    for cls in reversed(owner.__mro__):
        attributes.update(vars(cls))
    kinds: dict[type, dict[str, Handler]] = {SignalHandler: {}, QueryHandler: {}, UpdateHandler: {}}
    for attribute in attributes.values():
        table = kinds.get(type(attribute))
        if table is None:
            continue
        if attribute.name in table:
            raise RegistrationError(f"{owner.__qualname__}: two handlers are named {attribute.name!r}")
        table[attribute.name] = attribute.handler
    return HandlerTable(kinds[SignalHandler], kinds[QueryHandler], kinds[UpdateHandler])


class ObjectHandlers:
    """The handlers of one instance, bound to the object that runs it."""

    def __init__(self, definition: WorkflowDefinition, instance: object, limit: int | None) -> None:
        assert definition.handlers is not None
        self._definition, self._table, self._instance = definition, definition.handlers, instance
        self._limit = limit

    def handles_signal(self, name: str) -> bool:
        return name in self._table.signals

    async def signal(self, name: str, value: Raw) -> None:
        handler = self._table.signals[name]
        call = b"[[%b],{}]" % bytes(value) if handler.signature.signature.parameters else b"[[],{}]"
        try:
            args, _ = handler.signature.decode_arguments(call)
        except PayloadError as error:
            logger.warning("signal %r skipped, it stays in the history: %s", handler.name, error)
            return
        outcome = handler.function(self._instance, *args)
        if inspect.isawaitable(outcome):
            await outcome

    def check_update(self, name: str, input: Raw) -> None:
        handler = self._find("update", self._table.updates, name)
        args, kwargs = handler.signature.decode_arguments(input)
        if handler.validator is not None:
            handler.validator(self._instance, *args, **kwargs)

    async def update(self, name: str, input: Raw) -> bytes:
        handler = self._find("update", self._table.updates, name)
        # Decoded anew: a validator that changed its arguments has changed nothing here.
        args, kwargs = handler.signature.decode_arguments(input)
        outcome = handler.function(self._instance, *args, **kwargs)
        if inspect.isawaitable(outcome):
            outcome = await outcome
        return handler.signature.encode_result(outcome, self._limit)

    def query(self, name: str, input: Raw) -> bytes:
        handler = self._find("query", self._table.queries, name)
        args, kwargs = handler.signature.decode_arguments(input)
        return handler.signature.encode_result(handler.function(self._instance, *args, **kwargs), self._limit)

    def _find(self, kind: str, table: Any, name: str) -> Handler:
        handler: Handler | None = table.get(name)
        if handler is None:
            raise UnknownHandlerError(
                f"expected a {kind} of {self._definition.name}, found {name!r}; it has "
                f"{', '.join(sorted(table)) or 'none'}"
            )
        return handler

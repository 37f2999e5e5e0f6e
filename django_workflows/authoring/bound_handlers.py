"""The handlers of one instance, bound to the object that runs it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from django_workflows.engine.handlers import Work
from django_workflows.exceptions import PayloadError
from django_workflows.payloads import Raw
from django_workflows.registry import Handler, WorkflowDefinition

from .logger import logger


class BoundHandlers:
    """What the machine calls when a message arrives; `guard` is around all code of the author."""

    def __init__(
        self,
        definition: WorkflowDefinition,
        instance: object,
        limit: int | None,
        guard: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._definition, self._instance, self._limit, self._guard = definition, instance, limit, guard

    def signal(self, name: str, value: Raw) -> Work[None] | None:
        handler = self._definition.handlers.get("signal", {}).get(name)
        return None if handler is None else partial(self._handle_signal, handler, value)

    def check_update(self, name: str, input: Raw) -> None:
        handler = self._definition.find_handler("update", name)
        args, kwargs = handler.signature.decode_arguments(input)
        if handler.validator is not None:
            with self._guard():
                handler.validator(self._instance, *args, **kwargs)

    def update(self, name: str, input: Raw) -> Work[bytes]:
        handler = self._definition.find_handler("update", name)
        # Decoded anew: a validator that changed its arguments has changed nothing here.
        args, kwargs = handler.signature.decode_arguments(input)
        return partial(self._handle_update, handler, args, kwargs)

    def query(self, name: str, input: Raw) -> bytes:
        handler = self._definition.find_handler("query", name)
        args, kwargs = handler.signature.decode_arguments(input)
        with self._guard():
            answer = handler.function(self._instance, *args, **kwargs)
        return handler.signature.encode_result(answer, self._limit)

    async def _handle_signal(self, handler: Handler, value: Raw) -> None:
        call = b"[[%b],{}]" % bytes(value) if handler.signature.signature.parameters else b"[[],{}]"
        try:
            args, _ = handler.signature.decode_arguments(call)
        except PayloadError as error:
            logger.warning("signal %r skipped, it stays in the history: %s", handler.name, error)
            return
        await self._call(handler, args, {})

    async def _handle_update(self, handler: Handler, args: list[Any], kwargs: Mapping[str, Any]) -> bytes:
        return handler.signature.encode_result(await self._call(handler, args, kwargs), self._limit)

    async def _call(self, handler: Handler, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        with self._guard():
            outcome = handler.function(self._instance, *args, **kwargs)
            return await outcome if inspect.isawaitable(outcome) else outcome

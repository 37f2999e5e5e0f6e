"""From a definition and a stored input to code that runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from django_workflows.engine.handlers import Handlers, NoHandlers, Program
from django_workflows.engine.machine import Entry
from django_workflows.payloads import Payload
from django_workflows.registry import WorkflowDefinition

from .handlers import ObjectHandlers


def entry_of(definition: WorkflowDefinition, input: Payload, limit: int | None = None) -> Entry:
    """Return what makes an instance's program when it starts; `limit` bounds what it may return, in bytes.

    The input is decoded before the program exists: one that does not fit blocks the instance, it does not fail it.
    """

    def enter() -> Program:
        args, kwargs = definition.signature.decode_arguments(input)
        instance, run = definition.bind(args, kwargs)
        handlers: Handlers = NoHandlers(definition.name)
        if instance is not None:
            handlers = ObjectHandlers(definition, instance, limit)
        return Program(_main(definition, run, args, kwargs, limit), handlers)

    return enter


async def _main(
    definition: WorkflowDefinition,
    run: Callable[..., Coroutine[Any, Any, Any]],
    args: list[Any],
    kwargs: dict[str, Any],
    limit: int | None,
) -> bytes:
    return definition.signature.encode_result(await run(*args, **kwargs), limit)

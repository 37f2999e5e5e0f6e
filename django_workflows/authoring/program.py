"""From a definition and a stored input to code that runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NoReturn

from django_workflows.engine.handlers import NoHandlers, Program
from django_workflows.engine.machine import Entry
from django_workflows.payloads import Payload
from django_workflows.registry import WorkflowDefinition

from .bound_handlers import BoundHandlers

Guard = Callable[[], AbstractContextManager[object]]


def entry_of(
    definition: WorkflowDefinition, input: Payload, limit: int | None = None, guard: Guard = nullcontext
) -> Entry:
    """Return what makes an instance's program when it starts.

    `limit` bounds what it may return, in bytes; `guard` is around all code of the author. The input is decoded before
    the program exists: one that does not fit blocks the instance. An `__init__` that raises fails it, as `run` does.
    """

    def enter() -> Program:
        args, kwargs = definition.signature.decode_arguments(input)
        try:
            with guard():
                instance, run = definition.bind(args, kwargs)
        except BaseException as error:
            return Program(partial(_fail, error), NoHandlers(definition.name, "its __init__ has failed"))

        async def main() -> bytes:
            with guard():
                result = await run(*args, **kwargs)
            return definition.signature.encode_result(result, limit)

        return Program(main, BoundHandlers(definition, instance, limit, guard))

    return enter


async def _fail(error: BaseException) -> NoReturn:
    raise error

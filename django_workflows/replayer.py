"""Machines from what is stored: those that workers step, and those that only answer queries."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import msgspec
from django.core.exceptions import SynchronousOnlyOperation

from . import registry
from .authoring import propagation
from .authoring.program import entry_of
from .conf import get_settings
from .engine.events import InstanceOptions, decode_event
from .engine.handlers import Program
from .engine.machine import Entry, Machine
from .exceptions import NotAllowedInWorkflowError, PayloadError, UnknownWorkflowError
from .store import claims
from .store.database import Database
from .store.work import StoredExecution


def new_machine(stored: StoredExecution) -> Machine:
    """Return a machine that has seen nothing yet; raises UnknownWorkflowError or PayloadError."""
    info = stored.info
    definition = registry.workflows.get(info.workflow)
    if definition is None:
        raise UnknownWorkflowError(
            f"no workflow is registered as {info.workflow!r} on this worker; was it renamed, or is its app missing "
            "from INSTALLED_APPS here?"
        )
    settings = get_settings()
    limit = settings.max_payload_bytes
    return Machine(
        info, _rewording(entry_of(definition, stored.input, limit)), options=_decode_options(stored.options),
        restore=propagation.restore,
        default_location=definition.location, payload_limit=limit, history_limit=settings.history_limit,
    )  # fmt: skip


def replay(database: Database, instance: int) -> Machine:
    """Return a machine that has replayed the history of an execution, open or closed, as it is stored now.

    Raises UnknownWorkflowError, NondeterminismError, PayloadError: whatever keeps the code from running. It takes no
    part in the execution: nothing that it decides is stored.
    """
    stored = claims.load_execution(database, instance)
    machine = new_machine(stored)
    machine.replay((time, decode_event(type_name, data)) for time, type_name, data in stored.history)
    return machine


def _decode_options(text: str) -> InstanceOptions:
    try:
        return InstanceOptions.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PayloadError(f"expected the options of an instance, found {text[:200]!r}: {error}") from error


def _rewording(enter: Entry) -> Entry:
    def reworded() -> Program:
        program = enter()
        return program._replace(main=_reword(program.main))

    return reworded


async def _reword(main: Coroutine[Any, Any, bytes]) -> bytes:
    """Say what to do instead where Django refuses the ORM because an event loop runs."""
    try:
        return await main
    except SynchronousOnlyOperation as error:
        raise NotAllowedInWorkflowError(
            "workflow code used the ORM, whose answers replay cannot repeat; move the query into an activity"
        ) from error
    finally:
        main.close()

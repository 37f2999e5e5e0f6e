"""Machines from what is stored: those that workers step, and those that only answer queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec
from django.core.exceptions import SynchronousOnlyOperation

from . import registry
from .authoring import propagation
from .authoring.program import entry_of
from .conf import get_settings
from .engine.events import Event, InstanceOptions, decode_event
from .engine.machine import Machine
from .exceptions import NotAllowedInWorkflowError, PayloadError
from .store import claims
from .store.database import Database
from .store.work import StoredExecution


def new_machine(stored: StoredExecution) -> Machine:
    """Return a machine that has seen nothing yet; raises UnknownWorkflowError or PayloadError."""
    info = stored.info
    definition = registry.get_workflow(info.workflow)
    settings = get_settings()
    limit = settings.max_payload_bytes
    return Machine(
        info, entry_of(definition, stored.input, limit, _rewording), options=_decode_options(stored.options),
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
    machine.replay(history_of(stored))
    return machine


def history_of(stored: StoredExecution) -> list[tuple[datetime, Event]]:
    """Return the events of an execution; raises PayloadError for one that is missing or cannot be read."""
    events = []
    for number, (sequence, time, type_name, data) in enumerate(stored.history, start=1):
        if sequence != number:
            raise PayloadError(
                f"expected event {number} of the history, found event {sequence}: its rows are not whole"
            )
        events.append((time, decode_event(type_name, data)))
    return events


def _decode_options(text: str) -> InstanceOptions:
    try:
        return InstanceOptions.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise PayloadError(f"expected the options of an instance, found {text[:200]!r}: {error}") from error


@contextmanager
def _rewording() -> Iterator[None]:
    """Say what to do instead where Django refuses the ORM because an event loop runs."""
    try:
        yield
    except SynchronousOnlyOperation as error:
        raise NotAllowedInWorkflowError(
            "workflow code used the ORM, whose answers replay cannot repeat; move the query into an activity (the "
            "fields of a model object that was passed are queries too, all but its primary key)"
        ) from error

"""Context that travels: from whoever starts an instance through its code to activities and children."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar, copy_context
from typing import Any, Protocol

import msgspec

from django_workflows import payloads
from django_workflows.engine.machine import Machine


class Propagator(Protocol):
    """Carries one thing of the surroundings along; what it captures is stored as JSON with the instance.

    Example:
        class TenantPropagator:
            name = "tenant"

            def capture(self) -> Any:
                return current_tenant.get(None)

            def restore(self, value: Any) -> None:
                current_tenant.set(value)
    """

    name: str

    def capture(self) -> Any:
        """Return what to carry, as JSON data; None for nothing. Called where an instance or activity is started."""

    def restore(self, value: Any) -> None:
        """Put a captured value back. Called in a `contextvars.Context` of the instance's or the activity's own."""


class ContextVarPropagator:
    """Carries the value of a context variable, which must be JSON data."""

    def __init__(self, variable: ContextVar[Any]) -> None:
        self.name = variable.name
        self.variable = variable

    def capture(self) -> Any:
        return self.variable.get(None)

    def restore(self, value: Any) -> None:
        self.variable.set(value)


_propagators: tuple[Propagator, ...] = ()


def use_propagators(propagators: Iterable[Propagator]) -> None:
    """Have these carry context from now on; raises ValueError for two of one name."""
    global _propagators
    found = tuple(propagators)
    names = [propagator.name for propagator in found]
    if len(set(names)) < len(names):
        raise ValueError(f"expected propagators of different names, found {', '.join(names)}")
    _propagators = found


def capture() -> dict[str, Any]:
    """Return what is carried from here, by the names of the propagators; raises PayloadError for what is no JSON."""
    captured: dict[str, Any] = {}
    for propagator in _propagators:
        value = propagator.capture()
        if value is not None:
            # As it will come back from the database: a tuple is a list there.
            encoded = payloads.encode_plain(value, what=f"what propagator {propagator.name!r} captured")
            captured[propagator.name] = msgspec.json.decode(encoded)
    return captured


def capture_in(machine: Machine) -> dict[str, Any]:
    """Return what is carried from the code of an instance, anew only where its context has changed since the last call.

    Contexts in which nothing was set in between share their inside, so telling them apart costs next to nothing.
    """
    if not _propagators:
        return {}
    current = copy_context()
    if machine.captured is None or machine.captured[0] != current:
        machine.captured = (current, capture())
    return machine.captured[1]


def restore(context: Mapping[str, Any]) -> None:
    """Put carried context back; what no propagator knows any more is left out."""
    if context:
        for propagator in _propagators:
            if propagator.name in context:
                propagator.restore(context[propagator.name])

"""Context that travels: into the instance's code, and from there to activities and children."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from django_workflows import PayloadError, Workflow, workflow
from django_workflows.authoring import propagation
from django_workflows.authoring.propagation import ContextVarPropagator, use_propagators
from django_workflows.engine import events as ev

from .activities import echo
from .harness import Run, run

tenant: ContextVar[Any] = ContextVar("tenant")


@pytest.fixture(autouse=True)
def propagators() -> Iterator[None]:
    previous = propagation._propagators
    use_propagators([ContextVarPropagator(tenant)])
    yield
    use_propagators(previous)


@workflow(name="propagation.read")
async def read() -> Any:
    return tenant.get(None)


@workflow(name="propagation.change")
async def change() -> Any:
    async def background() -> None:
        tenant.set("background")
        await echo("in a task")

    tenant.set(tenant.get() - 19)
    await echo("in the workflow")
    await asyncio.create_task(background())
    await read()
    return tenant.get()


@pytest.fixture
def as_tenant(request: pytest.FixtureRequest) -> Iterator[None]:
    token = tenant.set(42)
    yield
    tenant.reset(token)


def carried(ran: Run) -> list[Any]:
    found = []
    for event in ran.events:
        if isinstance(event, ev.ActivityScheduled):
            found.append(event.options.get("context", {}).get("tenant"))
        elif isinstance(event, ev.ChildScheduled):
            found.append(event.options.context.get("tenant"))
    return found


def test_the_code_sees_what_the_starter_had(as_tenant: None) -> None:
    assert run(read).result == 42


def test_activities_and_children_get_what_their_caller_has_then(as_tenant: None) -> None:
    ran = run(change)
    assert carried(ran) == [23, "background", 23]
    assert ran.result == 23


def test_nothing_is_stored_where_there_is_nothing_to_carry() -> None:
    assert run(read).result is None
    assert Workflow(read.definition).options.for_instance().encode() == "{}"


def test_an_instance_leaves_the_context_of_its_worker_alone(as_tenant: None) -> None:
    run(change)
    assert tenant.get() == 42


def test_what_is_no_json_is_refused_where_it_is_captured() -> None:
    token = tenant.set(object())
    try:
        with pytest.raises(PayloadError, match="propagator 'tenant'"):
            read.options.for_instance()
    finally:
        tenant.reset(token)


def test_two_propagators_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="different names"):
        use_propagators([ContextVarPropagator(tenant), ContextVarPropagator(ContextVar("tenant"))])


def test_what_no_propagator_knows_any_more_is_left_out(as_tenant: None) -> None:
    options = read.options.for_instance()
    use_propagators([])
    propagation.restore(options.context)

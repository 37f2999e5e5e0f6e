"""Context that travels with an instance: context variables, the language, the time zone."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone, translation

from django_workflows import RetryPolicy, activity, workflow
from django_workflows.authoring import propagation
from django_workflows.authoring.propagation import ContextVarPropagator, use_propagators
from django_workflows.propagators import load
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)

tenant: ContextVar[str | None] = ContextVar("propagation_tenant", default=None)


@pytest.fixture(autouse=True)
def propagators() -> Iterator[None]:
    previous = propagation._propagators
    use_propagators([*previous, ContextVarPropagator(tenant)])
    yield
    use_propagators(previous)


def surroundings() -> list[Any]:
    return [tenant.get(), translation.get_language(), timezone.get_current_timezone_name()]


@activity(name="propagation.sync")
def in_sync_activity() -> list[Any]:
    return surroundings()


@activity(name="propagation.async")
async def in_async_activity() -> list[Any]:
    return surroundings()


@activity(name="propagation.atomic", atomic=True)
def in_atomic_activity() -> list[Any]:
    return surroundings()


@activity(name="propagation.second_attempt", retry=RetryPolicy(max_attempts=2))
def in_second_attempt() -> list[Any]:
    if activity.info().attempt == 1:
        tenant.set("spoilt")
        raise LookupError("not yet")
    return surroundings()


@workflow(name="propagation.everywhere")
async def everywhere() -> list[list[Any]]:
    activities = [
        await in_sync_activity(), await in_async_activity(), await in_atomic_activity(), await in_second_attempt()
    ]  # fmt: skip
    return [surroundings(), *activities, await child()]


@workflow(name="propagation.child")
async def child() -> list[Any]:
    return await in_sync_activity()


def test_context_reaches_code_activities_retries_and_children(worker: Worker) -> None:
    token = tenant.set("acme")
    try:
        with translation.override("de"), timezone.override("Asia/Tokyo"):
            handle = everywhere.start()
    finally:
        tenant.reset(token)
    assert handle.result(timeout=20) == [["acme", "de", "Asia/Tokyo"]] * 6


def test_an_instance_without_context_meets_that_of_no_other(worker: Worker) -> None:
    with translation.override("de"), timezone.override("Asia/Tokyo"):
        first = everywhere.start()
    assert first.result(timeout=20)[0][1:] == ["de", "Asia/Tokyo"]
    assert everywhere.start().result(timeout=20) == [[None, "en-us", "UTC"]] * 6


def test_another_worker_process_gets_the_context_from_the_tables(cache_size: int) -> None:
    with translation.override("de"):
        handle = child.start()
    with running_worker(activities=False, sticky_cache_size=cache_size), running_worker(workflows=False):
        assert handle.result(timeout=20) == [None, "de", "UTC"]


@pytest.mark.parametrize(
    "path", ["tests.conformance.test_propagation.tenant", "django_workflows.propagators.LanguagePropagator"]
)
def test_the_setting_names_context_variables_and_propagators(path: str) -> None:
    (found,) = load([path])
    assert found.name in ("propagation_tenant", "language")


@pytest.mark.parametrize("path", ["tests.nothing.here", "tests.conformance.test_propagation.surroundings"])
def test_a_path_that_names_neither_is_an_error_that_says_so(path: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r'DJANGO_WORKFLOWS\["PROPAGATORS"\]'):
        list(load([path]))

"""Code that changes under open instances: patches, versions, new names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_workflows import RegistrationError, Signal, WorkflowHandle, activity, registry, workflow
from django_workflows.authoring.activity import Activity
from django_workflows.authoring.workflow import Workflow
from django_workflows.models import InstanceStatus
from django_workflows.registry import ActivityDefinition, WorkflowDefinition
from django_workflows.testing import running_worker
from tests.conformance.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

go_on: Signal[None] = Signal("versioning_go_on", type(None))


@activity(name="versioning.note")
def note(text: str) -> str:
    return text


async def before() -> list[str]:
    noted = [await note("old")]
    await go_on.receive()
    return noted


async def patched() -> list[str]:
    noted = [await note("new")] if workflow.patched("add-a-note") else []
    noted.append(await note("old"))
    await go_on.receive()
    return noted


async def deprecated() -> list[str]:
    workflow.deprecate_patch("add-a-note")
    return await after()


async def after() -> list[str]:
    noted = [await note("new"), await note("old")]
    await go_on.receive()
    return noted


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workflow[Any, Any]]:
    """Register code under the one name, as a deployment does."""
    monkeypatch.setattr(registry.workflows, "_definitions", dict(registry.workflows._definitions))
    monkeypatch.setattr(registry.workflows, "_aliases", dict(registry.workflows._aliases))

    def deploy(code: Any, name: str = "versioning.order", **options: Any) -> Workflow[Any, Any]:
        definition = WorkflowDefinition(code, name, **options)
        registry.workflows._definitions.pop("versioning.order", None)
        return Workflow(registry.workflows.add(definition))

    return deploy


def start_and_wait(started: Workflow[Any, Any], notes: int, cache_size: int) -> WorkflowHandle[Any]:
    """Run an instance up to the point where it waits, and let the worker go."""
    handle = started.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: [event.type for event in handle.history()].count("ActivityCompleted") == notes)
    return handle


def test_the_three_deployments_of_a_patch(deploy: Callable[..., Workflow[Any, Any]], cache_size: int) -> None:
    old = start_and_wait(deploy(before), 1, cache_size)
    new = start_and_wait(deploy(patched), 2, cache_size)
    with running_worker(sticky_cache_size=cache_size):
        old.signal(go_on)
        assert old.result(timeout=20) == ["old"]
    newer = start_and_wait(deploy(deprecated), 2, cache_size)
    newest = start_and_wait(deploy(after), 2, cache_size)
    with running_worker(sticky_cache_size=cache_size):
        for handle in (new, newer, newest):
            handle.signal(go_on)
            assert handle.result(timeout=20) == ["new", "old"]


def test_an_instance_carries_the_version_of_the_code_that_started_it(
    deploy: Callable[..., Workflow[Any, Any]], cache_size: int
) -> None:
    async def version() -> str:
        await go_on.receive()
        return workflow.version()

    first = deploy(version, version="1").start()
    deploy(version, version="2")
    second = deploy(version, version="2").start()
    for handle in (first, second):
        handle.signal(go_on)
    with running_worker(sticky_cache_size=cache_size):
        assert (first.result(timeout=20), second.result(timeout=20)) == ("1", "2")
    assert (first.describe().version, second.describe().version) == ("1", "2")


def test_instances_of_a_renamed_workflow_go_on_under_its_alias(
    deploy: Callable[..., Workflow[Any, Any]], cache_size: int
) -> None:
    handle = start_and_wait(deploy(before), 1, cache_size)
    renamed = deploy(before, name="versioning.purchase", aliases=["versioning.order"])
    handle.signal(go_on)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=20) == ["old"]
        new = renamed.start()
        new.signal(go_on)
        assert new.result(timeout=20) == ["old"]
    assert (handle.describe().name, new.describe().name) == ("versioning.order", "versioning.purchase")


def test_without_the_alias_an_instance_is_blocked_until_somebody_knows_its_name(
    deploy: Callable[..., Workflow[Any, Any]], cache_size: int
) -> None:
    handle = deploy(before).start()
    deploy(before, name="versioning.purchase")
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: handle.status == InstanceStatus.BLOCKED)
        deploy(before, name="versioning.purchase", aliases=["versioning.order"])
        handle.signal(go_on)
        assert handle.result(timeout=20) == ["old"]


def test_an_alias_that_is_a_name_already_is_refused(deploy: Callable[..., Workflow[Any, Any]]) -> None:
    deploy(before)
    with pytest.raises(RegistrationError, match=r"two workflow definitions are named 'versioning\.other'"):
        deploy(patched, name="versioning.other")
        deploy(after, name="versioning.third", aliases=["versioning.other"])


def test_activities_of_a_renamed_kind_run_and_replay_under_their_alias(
    monkeypatch: pytest.MonkeyPatch, cache_size: int
) -> None:
    monkeypatch.setattr(registry.activities, "_definitions", dict(registry.activities._definitions))
    monkeypatch.setattr(registry.activities, "_aliases", dict(registry.activities._aliases))

    handle = call_note.start()
    with running_worker(activities=False, sticky_cache_size=cache_size):
        eventually(lambda: [event.type for event in handle.history()][1:] == ["ActivityScheduled"])
    definition = note.definition
    del registry.activities._definitions["versioning.note"]
    renamed = ActivityDefinition(
        definition.function, "versioning.write", definition.options, atomic=False, owner=None,
        aliases=["versioning.note"],
    )  # fmt: skip
    monkeypatch.setattr(note, "definition", registry.activities.add(renamed))
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=20) == ["first", "second"]
    names = [event.data["name"] for event in handle.history() if event.type == "ActivityScheduled"]
    assert names == ["versioning.note", "versioning.write"]


def test_the_decorators_take_aliases() -> None:
    @activity(name="versioning.new", aliases=["versioning.old"])
    def renamed() -> None: ...

    class Objects:
        @activity.method(aliases=["versioning.old_method"])
        def method(self) -> None: ...

    try:
        assert registry.activities.get("versioning.old") is renamed.definition
        assert registry.activities.get("versioning.old_method") is Objects.method.definition
    finally:
        for definition in (renamed.definition, Objects.method.definition):
            del registry.activities._definitions[definition.name]
            for alias in definition.aliases:
                del registry.activities._aliases[alias]


@workflow(name="versioning.call_note")
async def call_note() -> list[str]:
    assert isinstance(note, Activity)
    return [await note("first"), await note("second")]

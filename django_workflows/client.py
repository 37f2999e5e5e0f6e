"""The client: what `start()` and its kin do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from . import completion, payloads, updates, wakeups
from .authoring.handlers import UpdateRequest
from .authoring.signal import Signal
from .authoring.start_options import StartOptions
from .authoring.workflow import Workflow
from .conf import get_settings
from .exceptions import InstanceNotRunning
from .handles import WorkflowHandle, get_handle
from .store import starting, with_start
from .store.database import Database
from .store.starting import NewInstance
from .updates import UpdateHandle

__all__ = ["ModelClient", "UpdateHandle", "WorkflowHandle", "get_handle"]


class ModelClient:
    """Starts instances in the project's database; what `Workflow.start` and `handle` call."""

    def start(self, workflow: Workflow[Any, Any], args: Any, kwargs: Any) -> WorkflowHandle[Any]:
        options = workflow.options
        database = Database()
        row = starting.start(database, _new_instance(workflow, options, args, kwargs), options.on_conflict)
        wakeups.announce_on_commit(database.alias)
        return WorkflowHandle(row.instance_id, None, workflow)

    def start_many(
        self, workflow: Workflow[Any, Any], arguments: Iterable[tuple[Any, ...]], instance_ids: Iterable[str] | None
    ) -> list[WorkflowHandle[Any]]:
        if workflow.options.on_conflict != "raise":
            raise ValueError("start_many() starts all or none: expected on_conflict='raise'")
        if workflow.options.instance_id is not None:
            raise ValueError("start_many() takes its ids from instance_ids=, not from using(instance_id=)")
        calls = list(arguments)
        ids = [None] * len(calls) if instance_ids is None else list(instance_ids)
        if len(ids) != len(calls):
            raise ValueError(f"expected one instance_id for each of the {len(calls)} calls, found {len(ids)}")
        build = partial(_new_instance, workflow, workflow.options)
        news = [replace(build(args, {}), instance_id=instance_id) for args, instance_id in zip(calls, ids, strict=True)]
        database = Database()
        rows = starting.start_many(database, news)
        wakeups.announce_on_commit(database.alias)
        return [WorkflowHandle(row.instance_id, None, workflow) for row in rows]

    def signal_with_start(
        self, workflow: Workflow[Any, Any], signal: Signal[Any] | str, value: Any, args: Any, kwargs: Any
    ) -> WorkflowHandle[Any]:
        name = signal.name if isinstance(signal, Signal) else signal
        payload = payloads.encode(value, what=f"signal {name!r}", limit=get_settings().max_payload_bytes)
        new, database = _addressed(workflow, args, kwargs), Database()
        row = with_start.signal(database, new, name, payload)
        wakeups.announce_on_commit(database.alias)
        return WorkflowHandle(row.instance_id, None, workflow)

    def update_with_start(
        self, workflow: Workflow[Any, Any], request: UpdateRequest[Any], args: Any, kwargs: Any
    ) -> UpdateHandle[Any]:
        new, database = _addressed(workflow, args, kwargs), Database()

        def ask() -> UpdateHandle[Any]:
            while True:
                row, _ = starting.start_or_find(database, new, "use_existing")
                try:
                    return updates.request(
                        database, row.instance_id, None, request.update, request.args, request.kwargs
                    )
                except InstanceNotRunning:
                    pass  # it has closed since we looked

        return starting.repeat_deadlocks(database, ask)

    def handle(
        self, instance_id: str, execution_id: str | None, workflow: Workflow[Any, Any] | None
    ) -> WorkflowHandle[Any]:
        return WorkflowHandle(instance_id, execution_id, workflow)

    def complete_activity(self, token: str, value: Any) -> None:
        completion.complete(token, value)

    def fail_activity(self, token: str, error: BaseException) -> None:
        completion.fail(token, error)


def _new_instance(
    workflow: Workflow[Any, Any], options: StartOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> NewInstance:
    settings = get_settings()
    payload = workflow.definition.signature.encode_arguments(args, kwargs, settings.max_payload_bytes)
    return NewInstance(
        name=workflow.name, queue=options.queue or settings.default_queue, input=payload.decode(),
        instance_id=options.instance_id, version=workflow.definition.version, subject=options.subject_reference,
        attributes=options.stored_attributes(settings.max_payload_bytes), options=options.for_instance(),
    )  # fmt: skip


def _addressed(workflow: Workflow[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewInstance:
    """Return what a message with a start may start; raises ValueError for options that do not go together with it."""
    options = workflow.options
    if options.instance_id is None:
        raise ValueError(f"expected using(instance_id=...) of {workflow.name}: the message needs an address")
    if options.on_conflict == "terminate_existing":
        raise ValueError(
            f"expected no on_conflict='terminate_existing' of {workflow.name}: the open instance gets the message"
        )
    return _new_instance(workflow, options, args, kwargs)

"""Closing an execution from outside, and what a close tells parents and children: inbox rows, nothing else."""

from __future__ import annotations

from django_workflows.engine.events import (
    CancelRequested,
    ChildFailed,
    InputEvent,
    InstanceOptions,
    InstanceTerminated,
    ParentClose,
    TerminateRequested,
    encode_event,
)
from django_workflows.exceptions import ChildWorkflowTerminated
from django_workflows.failures import Failure
from django_workflows.models import (
    HistoryEvent,
    InboxEvent,
    InstanceStatus,
    OpenInstance,
    WorkflowInstance,
    WorkflowUpdate,
)

from .answers import leave_unanswered
from .database import Database, DatabaseNow


def close_terminated(database: Database, open_row: OpenInstance, reason: str) -> None:
    """Mark the execution behind a locked open row as terminated; the caller deletes or reuses the open row."""
    instances = WorkflowInstance.objects.using(database.alias)
    instance = instances.select_for_update().get(pk=open_row.instance_id)
    sequence = open_row.history_length + 1
    HistoryEvent.objects.using(database.alias).create(
        instance_id=instance.pk, sequence=sequence, type="InstanceTerminated", time=DatabaseNow(),
        data=encode_event(InstanceTerminated(command=0, reason=reason)),
    )  # fmt: skip
    instances.filter(pk=instance.pk).update(
        status=InstanceStatus.TERMINATED, closed_at=DatabaseNow(), history_length=sequence,
        failure=termination(reason).encode().decode(),
    )  # fmt: skip
    _fail_accepted_updates(database, open_row.chain_id, instance.instance_id)
    _tell_parent(database, instance, reason)
    close_children(database, instance.pk, f"parent {instance.instance_id!r} was terminated")


def close_children(database: Database, parent_id: int, reason: str) -> None:
    """Tell the open children of an execution that it has closed, each by its own `parent_close`."""
    children = WorkflowInstance.objects.using(database.alias).open().filter(parent_id=parent_id)
    rows = []
    for child in children.only("id", "chain_id", "queue", "options"):
        event = closing_event(InstanceOptions.decode(child.options).parent_close, reason)
        if event is not None:
            rows.append(
                InboxEvent(
                    chain_id=child.chain, type=event.type, queue=child.queue, created_at=DatabaseNow(),
                    data=encode_event(event),
                )
            )  # fmt: skip
    _insert(database, rows)


def closing_event(policy: ParentClose, reason: str) -> InputEvent | None:
    """Return what a child is sent when its parent closes, None for one that is left alone."""
    match policy:
        case "cancel":
            return CancelRequested(reason)
        case "terminate":
            return TerminateRequested(reason)
    return None


def was_terminated(name: str, instance_id: str, reason: str) -> Failure:
    """Return what the parent of a terminated child sees."""
    return Failure.of(
        ChildWorkflowTerminated(f"child {name} {instance_id!r} was terminated: {reason or 'no reason given'}")
    )


def termination(reason: str) -> Failure:
    """Return what the row of a terminated instance holds."""
    return Failure(type="django_workflows.exceptions.WorkflowTerminated", message=reason)


def _fail_accepted_updates(database: Database, chain: int, instance_id: str) -> None:
    """Answer what the code can answer no more; requests that it has not read are left to whoever collects them."""
    accepted = WorkflowUpdate.objects.using(database.alias).filter(
        chain_id=chain, status=WorkflowUpdate.Status.ACCEPTED
    )
    with database.cursor() as cursor:
        leave_unanswered(
            database, cursor, accepted.values_list("pk", flat=True), WorkflowUpdate.Status.FAILED,
            f"instance {instance_id!r} was terminated before it answered the update",
        )  # fmt: skip


def _tell_parent(database: Database, instance: WorkflowInstance, reason: str) -> None:
    if instance.parent_id is None or instance.parent_command is None:
        return
    parent = WorkflowInstance.objects.using(database.alias).filter(pk=instance.parent_id).first()
    if parent is None:
        return
    failure = was_terminated(instance.name, instance.instance_id, reason)
    event = ChildFailed(command=instance.parent_command, failure=failure)
    _insert(
        database,
        [
            InboxEvent(
                chain_id=parent.chain, instance_id=parent.pk, type=event.type, data=encode_event(event),
                queue=parent.queue, created_at=DatabaseNow(),
            )
        ],
    )  # fmt: skip


def _insert(database: Database, rows: list[InboxEvent]) -> None:
    InboxEvent.objects.using(database.alias).bulk_create(rows)

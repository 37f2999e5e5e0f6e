"""What the application sends to instances, in its own transaction: signals, cancel requests, terminations."""

from __future__ import annotations

import msgspec

from django_workflows.engine.events import CancelRequested, InputEvent, SignalReceived, UpdateRequested, encode_event
from django_workflows.exceptions import InstanceNotFound, InstanceNotRunning
from django_workflows.keys import key_of
from django_workflows.models import InboxEvent, OpenInstance, WorkflowInstance, WorkflowUpdate

from . import closing
from .database import Database, DatabaseNow


def find_instance(database: Database, instance_id: str, execution_id: str | None) -> WorkflowInstance:
    """Return the bound execution, or the newest of the id; raises InstanceNotFound."""
    rows = WorkflowInstance.objects.using(database.alias).filter(instance_key=key_of(instance_id))
    if execution_id is not None:
        rows = rows.filter(execution_id=execution_id)
    found = rows.order_by("-id").first()
    if found is None:
        bound = f" and execution_id {execution_id!r}" if execution_id else ""
        raise InstanceNotFound(f"no workflow instance has the instance_id {instance_id!r}{bound}")
    return found


def signal(database: Database, instance_id: str, execution_id: str | None, name: str, value: bytes) -> None:
    """Insert a signal for the open execution; raises InstanceNotFound or InstanceNotRunning."""
    _send(database, instance_id, execution_id, SignalReceived(name, msgspec.Raw(value)))


def update(
    database: Database, instance_id: str, execution_id: str | None, update_id: str, name: str, input: bytes
) -> None:
    """Insert an update and its request for the open execution; raises InstanceNotFound or InstanceNotRunning."""
    database.dialect.refuse_large(input.decode())
    open_row = _open_row(database, instance_id, execution_id)
    with database.atomic():
        WorkflowUpdate.objects.using(database.alias).create(
            update_id=update_id, chain_id=open_row.chain_id, name=name, input=input.decode(), created_at=DatabaseNow()
        )
        event = UpdateRequested(update_id, name, msgspec.Raw(input))
        _insert(database, open_row, event, bound=execution_id is not None)


def cancel(database: Database, instance_id: str, execution_id: str | None, reason: str) -> None:
    """Insert a cancel request for the open execution; raises InstanceNotFound or InstanceNotRunning."""
    _send(database, instance_id, execution_id, CancelRequested(reason))


def terminate(database: Database, instance_id: str, execution_id: str | None, reason: str) -> None:
    """Close the open execution at once; no workflow code runs. Raises InstanceNotFound or InstanceNotRunning.

    Holds the instance's open row until the caller's transaction ends: its steps wait that long, no other's do.
    """
    seen = _open_row(database, instance_id, execution_id)
    with database.atomic():
        open_rows = OpenInstance.objects.using(database.alias).filter(pk=seen.pk)
        open_row = open_rows.select_for_update().first()
        if open_row is not None and (execution_id is None or open_row.instance_id == seen.instance_id):
            closing.close_terminated(database, open_row, reason)
            open_rows.delete()
            return
    # Raised out here: an error that leaves an atomic block would break the caller's transaction.
    raise InstanceNotRunning(f"expected instance {instance_id!r} to be open, it has closed at this moment")


def _send(database: Database, instance_id: str, execution_id: str | None, event: InputEvent) -> None:
    open_row = _open_row(database, instance_id, execution_id)
    _insert(database, open_row, event, bound=execution_id is not None)


def _insert(database: Database, open_row: OpenInstance, event: InputEvent, *, bound: bool) -> None:
    data = encode_event(event)
    database.dialect.refuse_large(data)
    InboxEvent.objects.using(database.alias).create(
        chain_id=open_row.chain_id,
        # Addressed to the chain: a message for "the order" reaches the next execution after continue-as-new.
        instance_id=open_row.instance_id if bound else None,
        type=event.type,
        data=data,
        queue=open_row.queue,
        created_at=DatabaseNow(),
    )


def _open_row(database: Database, instance_id: str, execution_id: str | None) -> OpenInstance:
    open_row = OpenInstance.objects.using(database.alias).filter(pk=key_of(instance_id)).first()
    if open_row is None or execution_id is not None:
        instance = find_instance(database, instance_id, execution_id)
        if open_row is None or open_row.instance_id != instance.pk:
            raise InstanceNotRunning(
                f"expected instance {instance_id!r} to be open, found it {instance.get_status_display().lower()}"
            )
    return open_row

"""Rows as the store leaves them, written with the models."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

from django.utils import timezone

from django_workflows.keys import key_of
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    InstanceStatus,
    OpenInstance,
    Worker,
    WorkflowInstance,
    WorkflowUpdate,
)

_numbers = count(1)


def instance(instance_id: str = "", status: str = InstanceStatus.RUNNING, **fields: Any) -> WorkflowInstance:
    """Create an instance, with its open row where the status is an open one."""
    number = next(_numbers)
    instance_id = instance_id or f"order-{number}"
    is_open = status in (InstanceStatus.RUNNING, InstanceStatus.BLOCKED)
    live_length = fields.pop("live_length", 0)
    now = timezone.now()
    defaults = {
        "name": "shop.fulfil_order",
        "queue": "default",
        "input": '{"args":[17]}',
        "created_at": now - timedelta(minutes=10),
        "closed_at": None if is_open else now,
    }
    row = WorkflowInstance.objects.create(
        instance_id=instance_id,
        instance_key=key_of(instance_id),
        execution_id=f"{number:032x}",
        status=status,
        **defaults | fields,
    )
    if is_open:
        OpenInstance.objects.create(
            open_key=row.instance_key, chain_id=row.pk, instance_id=row.pk, queue=row.queue, history_length=live_length
        )
    return row


def task(of: WorkflowInstance, command: int, **fields: Any) -> ActivityTask:
    defaults = {
        "name": "shop.charge_card",
        "queue": "default",
        "workflow_queue": of.queue,
        "scheduled_at": timezone.now(),
        "options": "{}",
        "input": '["secret activity input"]',
    }
    return ActivityTask.objects.create(instance_id=of.pk, chain_id=of.chain, command=command, **defaults | fields)


def events(of: WorkflowInstance, rows: list[tuple[str, str]]) -> None:
    now = timezone.now()
    HistoryEvent.objects.bulk_create(
        HistoryEvent(instance_id=of.pk, sequence=number, type=type, time=now, data=data)
        for number, (type, data) in enumerate(rows, start=1)
    )


def message(of: WorkflowInstance, data: str, type: str = "SignalReceived", **fields: Any) -> InboxEvent:
    return InboxEvent.objects.create(chain_id=of.chain, type=type, data=data, **{"queue": of.queue} | fields)


def update(of: WorkflowInstance, name: str, **fields: Any) -> WorkflowUpdate:
    defaults = {"input": '[["secret update input"],{}]', "created_at": timezone.now()}
    return WorkflowUpdate.objects.create(
        update_id=f"{next(_numbers):032x}", chain_id=of.chain, name=name, **defaults | fields
    )


def worker(queues: list[str], lease: timedelta = timedelta(minutes=5), **fields: Any) -> Worker:
    defaults = {"host": "web-1", "process_id": next(_numbers), "slots": 8, "lease_until": timezone.now() + lease}
    return Worker.objects.create(queues=queues, **defaults | fields)

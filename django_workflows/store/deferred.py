"""Results that come by token, in an application's transaction: plain reads and an insert, no lock."""

from __future__ import annotations

from django_workflows.engine.events import ActivityCompleted, ActivityFailed, decode_event, encode_event
from django_workflows.exceptions import AttemptNotRunning, InstanceNotFound, InstanceNotRunning
from django_workflows.models import ActivityTask, InboxEvent, OpenInstance, WorkflowInstance

from .database import Database, DatabaseNow
from .work import TaskKey


def find_task(database: Database, key: TaskKey, attempt: int) -> ActivityTask:
    """Return the task of an attempt that runs or is deferred.

    Raises InstanceNotFound, InstanceNotRunning, or AttemptNotRunning with the reason.
    """
    if not OpenInstance.objects.using(database.alias).filter(instance_id=key.instance).exists():
        _refuse_closed(database, key)
    task = ActivityTask.objects.using(database.alias).filter(pk=tuple(key)).first()
    if task is None:
        raise _over(f"activity {key.command}", attempt, "the activity has ended: finished, timed out or cancelled")
    if task.attempt != attempt:
        raise _over(task.name, attempt, f"attempt {task.attempt} has taken its place")
    if task.available_at is not None:
        raise _over(task.name, attempt, "it failed, timed out or lost its worker, and the next attempt is due")
    if _has_result(database, task):
        raise _over(task.name, attempt, "it was completed or failed by this token already")
    return task


def send(database: Database, task: ActivityTask, event: ActivityCompleted | ActivityFailed) -> None:
    """Insert the outcome for the execution that waits for it."""
    data = encode_event(event)
    database.dialect.refuse_large(data)
    InboxEvent.objects.using(database.alias).create(
        chain_id=task.chain_id, instance_id=task.instance_id, type=event.type, data=data,
        queue=task.workflow_queue, created_at=DatabaseNow(),
    )  # fmt: skip


def _refuse_closed(database: Database, key: TaskKey) -> None:
    instance = WorkflowInstance.objects.using(database.alias).filter(pk=key.instance).first()
    if instance is None:
        raise InstanceNotFound("the workflow instance that this token belongs to was removed")
    raise InstanceNotRunning(
        f"expected instance {instance.instance_id!r} to be open, found it {instance.get_status_display().lower()}; "
        "nobody waits for its activities any more"
    )


def _has_result(database: Database, task: ActivityTask) -> bool:
    """Tell whether a result by token waits in the inbox already."""
    types = [ActivityCompleted.__name__, ActivityFailed.__name__]
    rows = InboxEvent.objects.using(database.alias).filter(chain_id=task.chain_id, instance_id=task.instance_id)
    for type_name, data in rows.filter(type__in=types).values_list("type", "data"):
        event = decode_event(type_name, data)
        if isinstance(event, ActivityCompleted | ActivityFailed) and event.command == task.command:
            return True
    return False


def _over(name: str, attempt: int, why: str) -> AttemptNotRunning:
    return AttemptNotRunning(f"attempt {attempt} of {name} takes no result any more: {why}")

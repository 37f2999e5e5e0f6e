"""Starting children whose ids their authors chose: each in a short transaction of its own, never in a turn.

An application may hold such an id for long, by starting it or by terminating it; a turn would wait for it. So the step
that decides to start such a child leaves an order in the inbox of its own chain.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db.backends.utils import CursorWrapper

from django_workflows.engine.events import (
    ChildFailed,
    ChildScheduled,
    ChildStarted,
    ResultEvent,
    encode_event,
)
from django_workflows.failures import Failure
from django_workflows.keys import key_of
from django_workflows.models import InboxEvent, OpenInstance, WorkflowInstance

from . import brief, starting
from .database import Database, DatabaseNow
from .work import ChildOrder

logger = logging.getLogger("django_workflows.store")


def child_row(parent: int, root: int | None, event: ChildScheduled, created_at: Any) -> WorkflowInstance:
    """Return the row of the child that an execution schedules with this event."""
    return WorkflowInstance(
        instance_id=event.instance_id, instance_key=key_of(event.instance_id), execution_id=event.execution_id,
        name=event.name, version=event.version, queue=event.queue, input=bytes(event.input).decode(),
        parent_id=parent, parent_command=event.command, root_id=root or parent, attributes=event.attributes,
        options=event.options.encode(), created_at=created_at, **starting.subject_columns(event.subject),
    )  # fmt: skip


def carry_out(database: Database, order: ChildOrder) -> bool:
    """Start the child that is ordered, and tell the parent; return False where a lock could not be had yet.

    The order is deleted in the same transaction, so it is carried out once, whoever else has read it. A parent that
    has closed meanwhile leaves only children that it was to abandon.
    """
    return brief.attempt(
        database,
        lambda cursor: _carry_out(database, cursor, order),
        lambda error: _refuse(database, order, error),
    )


def _carry_out(database: Database, cursor: CursorWrapper, order: ChildOrder) -> None:
    event = order.event
    parent = WorkflowInstance.objects.using(database.alias).filter(pk=order.parent).first()
    # Locked, so that whoever closes the parent either comes first or finds the child.
    is_open = parent is not None and database.dialect.select(
        cursor, OpenInstance, ("open_key",), ("open_key",), [parent.instance_key],
        where=f"AND t.instance_id = {parent.pk:d}", lock="wait",
    )  # fmt: skip
    if not database.dialect.delete_counted(cursor, InboxEvent, ("id",), [order.id]) or parent is None:
        return
    if not is_open and event.options.parent_close != "abandon":
        return
    row = child_row(parent.pk, parent.root_id, event, DatabaseNow())
    outcome: ResultEvent = ChildStarted(event.command)
    if starting.insert_or_find(database, row, "raise") is not None:
        error = starting.already_open(row, "a child needs an id that is free")
        outcome = ChildFailed(command=event.command, failure=Failure.of(error))
        if not is_open:
            logger.warning(
                "%s %r has closed, and its child was not started: %s", parent.name, parent.instance_id, error
            )
    if is_open:
        _tell(database, parent, outcome)


def _refuse(database: Database, order: ChildOrder, error: Exception) -> None:
    """Fail the start of a child that the database does not take."""
    with database.atomic(), database.cursor() as cursor:
        parent = WorkflowInstance.objects.using(database.alias).filter(pk=order.parent).first()
        if database.dialect.delete_counted(cursor, InboxEvent, ("id",), [order.id]) and parent is not None:
            _tell(database, parent, ChildFailed(command=order.event.command, failure=Failure.of(error)))


def _tell(database: Database, parent: WorkflowInstance, outcome: ResultEvent) -> None:
    InboxEvent.objects.using(database.alias).create(
        chain_id=parent.chain, instance_id=parent.pk, type=outcome.type, data=encode_event(outcome),
        queue=parent.queue, created_at=DatabaseNow(),
    )  # fmt: skip

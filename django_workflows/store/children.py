"""Starting children whose ids their authors chose: each in a short transaction of its own, never in a turn.

An application may hold such an id for long, by starting it or by terminating it; a turn would wait for it.
"""

from __future__ import annotations

from typing import Any

from django.db import OperationalError

from django_workflows.engine.events import ChildFailed, ChildScheduled, ChildStarted, ResultEvent, encode_event
from django_workflows.failures import Failure
from django_workflows.keys import key_of
from django_workflows.models import InboxEvent, WorkflowInstance

from . import starting
from .database import Database, DatabaseNow
from .work import OpenChain


def child_row(chain: OpenChain, event: ChildScheduled, created_at: Any) -> WorkflowInstance:
    """Return the row of a child that this event schedules."""
    return WorkflowInstance(
        instance_id=event.instance_id, instance_key=key_of(event.instance_id), execution_id=event.execution_id,
        name=event.name, version=event.version, queue=event.queue, input=bytes(event.input).decode(),
        parent_id=chain.instance, parent_command=event.command, root_id=chain.root or chain.instance,
        attributes=event.attributes, options=event.options.encode(), created_at=created_at,
        **starting.subject_columns(event.subject),
    )  # fmt: skip


def start_child(database: Database, chain: OpenChain, order: int, event: ChildScheduled) -> bool:
    """Carry out the order in an inbox row, and tell the parent; return False where a lock could not be had yet.

    The order is deleted in the same transaction, so it is carried out once, whoever else has read it.
    """
    try:
        with database.atomic(), database.cursor() as cursor:
            with database.dialect.brief_lock_wait(cursor):
                if not database.dialect.delete(cursor, InboxEvent, ("id",), [order]):
                    return True
                row = child_row(chain, event, DatabaseNow())
                taken = starting.insert_or_find(database, row, "raise") is not None
            outcome: ResultEvent = ChildStarted(event.command)
            if taken:
                error = starting.already_open(row, "a child needs an id that is free")
                outcome = ChildFailed(command=event.command, failure=Failure.of(error))
            InboxEvent.objects.using(database.alias).create(
                chain_id=chain.chain, instance_id=chain.instance, type=outcome.type, data=encode_event(outcome),
                queue=chain.queue, created_at=DatabaseNow(),
            )  # fmt: skip
    except OperationalError as error:
        if database.dialect.is_lock_timeout(error) or database.dialect.is_deadlock(error):
            return False
        raise
    return True

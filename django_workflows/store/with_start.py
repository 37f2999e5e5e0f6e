"""Signals with a start: for the open instance of an id, or for one that they start.

Inserts only, so the open instance may close without having read the signal. The row carries what it would have started;
whoever meets it in the inbox of a closed chain sends it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from django.db.backends.utils import CursorWrapper

from django_workflows.engine.events import CarriedSignal, InputEvent, SignalWithStart, encode_event
from django_workflows.models import InboxEvent, InstanceStatus, WorkflowInstance

from . import brief, starting
from .database import Database, DatabaseNow
from .starting import NewInstance


def signal(database: Database, new: NewInstance, name: str, value: bytes) -> WorkflowInstance:
    """Signal the open instance of the id or start it with the signal, in the caller's transaction; return its row."""
    event = SignalWithStart(name, msgspec.Raw(value), msgspec.Raw(msgspec.json.encode(new)))
    database.dialect.refuse_large(encode_event(event))

    def send() -> WorkflowInstance:
        started, existing = _start_or_find(database, event)
        if existing is None:
            return started
        InboxEvent.objects.using(database.alias).create(
            chain_id=existing.chain, type=event.type, data=encode_event(event), queue=existing.queue,
            created_at=DatabaseNow(),
        )  # fmt: skip
        return existing

    return starting.repeat_deadlocks(database, send)


def send_again(database: Database, chain: int, unread: dict[int, SignalWithStart]) -> int:
    """Send what a chain has closed without, by inbox row, to the next instance; return how many, 0 to try again later.

    What was in the inbox of a terminated instance is left undelivered: nobody meant to start that again.
    """
    sent: list[int] = []
    brief.attempt(
        database,
        lambda cursor: sent.extend(_send_again(database, cursor, chain, unread)),
        lambda error: sent.extend(_leave_undelivered(database, chain, unread)),
    )
    return len(sent)


def _start_or_find(database: Database, event: SignalWithStart) -> tuple[WorkflowInstance, WorkflowInstance | None]:
    """Start an instance with the signal in its first event, so that it is the first, and starts no other."""
    new = msgspec.json.decode(event.start, type=NewInstance)
    with_signal = replace(new, signals=(CarriedSignal(event.name, event.value),))
    return starting.start_or_find(database, with_signal, "use_existing")


def _send_again(database: Database, cursor: CursorWrapper, chain: int, unread: dict[int, SignalWithStart]) -> list[int]:
    rows = _lock(database, cursor, chain, unread)
    executions = WorkflowInstance.objects.using(database.alias)
    last = executions.filter(chain_id=chain).order_by("-id").first() or executions.filter(pk=chain).first()
    if not rows:
        pass
    elif last is None:
        database.dialect.delete(cursor, InboxEvent, ("id",), rows)
    elif last.status == InstanceStatus.TERMINATED:
        _change(database, cursor, chain, None, {row: unread[row].signal for row in rows})
    else:
        started, existing = _start_or_find(database, unread[rows[0]])
        if existing is None:
            database.dialect.delete(cursor, InboxEvent, ("id",), rows[:1])
        found, left = (started, rows[1:]) if existing is None else (existing, rows)
        # They move with their numbers, and so keep their order.
        _change(database, cursor, found.chain, found.queue, {row: unread[row] for row in left})
    return rows


def _leave_undelivered(database: Database, chain: int, unread: dict[int, SignalWithStart]) -> list[int]:
    with database.atomic(), database.cursor() as cursor:
        rows = _lock(database, cursor, chain, unread)
        _change(database, cursor, chain, None, {row: unread[row].signal for row in rows})
    return rows


def _lock(database: Database, cursor: CursorWrapper, chain: int, unread: dict[int, SignalWithStart]) -> list[int]:
    """Return the rows that are still there, locked; in their order."""
    where = f"AND t.chain_id = {chain:d}"
    found = database.dialect.select(cursor, InboxEvent, ("id",), ("id",), list(unread), where=where, lock="skip")
    return sorted(row[0] for row in found)


def _change(
    database: Database, cursor: CursorWrapper, chain: int, queue: str | None, events: Mapping[int, InputEvent]
) -> None:
    if events:
        rows = [(row, chain, event.type, encode_event(event), queue) for row, event in events.items()]
        database.dialect.update(cursor, InboxEvent, ("id",), ("chain_id", "type", "data", "queue"), rows)

"""A journal of the storm, which triggers keep: what was sent, opened, closed and read, by transaction.

At rest the inbox is empty, so the tables alone cannot say whether somebody was told.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from django_workflows.engine import events as ev
from django_workflows.engine.events import Event, InstanceOptions
from django_workflows.models import ActivityTask, InboxEvent, InstanceStatus, Worker, WorkflowInstance

from .world import Violation

TABLE = "journal"
_INBOX, _INSTANCE = InboxEvent._meta.db_table, WorkflowInstance._meta.db_table
_TASK, _WORKER = ActivityTask._meta.db_table, Worker._meta.db_table
_ENTER = f"INSERT INTO {TABLE} (number, fact, row, chain, instance, type, data) VALUES (transaction_number(),"
SCHEMA = (
    f"CREATE TABLE {TABLE} (number integer, fact text, row integer, chain integer, instance integer, type text, "
    "data text)",
    f"CREATE INDEX by_number ON {TABLE} (number)",
    f"CREATE TRIGGER sent AFTER INSERT ON {_INBOX} BEGIN "
    f"{_ENTER} 'sent', NEW.id, NEW.chain_id, NEW.instance_id, NEW.type, NEW.data); END",
    f"CREATE TRIGGER read AFTER DELETE ON {_INBOX} BEGIN "
    f"{_ENTER} 'read', OLD.id, OLD.chain_id, OLD.instance_id, OLD.type, ''); END",
    f"CREATE TRIGGER opened AFTER INSERT ON {_INSTANCE} BEGIN "
    f"{_ENTER} 'opened', NEW.id, coalesce(NEW.chain_id, NEW.id), NEW.id, '', ''); END",
    f"CREATE TRIGGER closed AFTER UPDATE OF status ON {_INSTANCE} "
    "WHEN NEW.closed_at IS NOT NULL AND OLD.closed_at IS NULL BEGIN "
    f"{_ENTER} 'closed', NEW.id, coalesce(NEW.chain_id, NEW.id), NEW.id, '', ''); END",
    f"CREATE TRIGGER freed AFTER UPDATE OF owner_id ON {_TASK} WHEN NEW.owner_id IS NULL BEGIN "
    f"{_ENTER} 'freed', OLD.owner_id, OLD.chain_id, OLD.instance_id, '', OLD.command); END",
)
# What a transaction freed that somebody else had, or nobody: a task is given back by its owner, or after its death.
FREED = (
    f"SELECT j.instance, j.data, j.row FROM {TABLE} j LEFT JOIN {_WORKER} w ON w.id = j.row AND w.state = 'alive' "
    "WHERE j.number = transaction_number() AND j.fact = 'freed' AND (j.row IS NULL OR w.id != ?)"
)
_TOLD = {"cancel": ev.CancelRequested.__name__, "terminate": ev.TerminateRequested.__name__}
_CHILD_ENDS = (ev.ChildCompleted.__name__, ev.ChildFailed.__name__)
_ACTIVITY_ENDS = (ev.ActivityCompleted.__name__, ev.ActivityFailed.__name__)
_TIMES = "fact IN ('read', 'opened', 'closed')"
_PARENT_ENDED = "its parent closed"


class Entry(NamedTuple):
    """An inbox row that was sent."""

    number: int  # of the transaction
    row: int
    chain: int
    instance: int | None
    type: str
    data: str


class Journal:
    """What happened, and what must be true of it beside the tables at rest."""

    def __init__(self, connection: Any) -> None:
        columns = "number, row, chain, instance, type, data"
        self._sent = [Entry(*row) for row in connection.raw(f"SELECT {columns} FROM {TABLE} WHERE fact = 'sent'")]
        self._to_chain: dict[int, list[Entry]] = defaultdict(list)
        for entry in self._sent:
            self._to_chain[entry.chain].append(entry)
        times: dict[str, dict[int, int]] = {"read": {}, "opened": {}, "closed": {}}
        for fact, row, number in connection.raw(
            f"SELECT fact, row, number FROM {TABLE} WHERE fact IN ('read', 'opened', 'closed')"
        ):
            times[fact][row] = number
        self._read, self._opened, self._closed = times.values()

    def check_activities(self) -> None:
        """A result takes its task with it, so that there is one; who has lost a lease has nothing to take.

        The machine would discard a second result: this is the defence before it. Tokens are anybody's.
        """
        ends = Counter(
            (entry.instance, data["command"])
            for entry in self._sent
            if entry.type in _ACTIVITY_ENDS and not (data := json.loads(entry.data)).get("deferred")
        )
        doubled = [key for key, count in ends.items() if count > 1]
        _expect(not doubled, f"activities with more than one result: {doubled}")

    def check_child(
        self, parent: WorkflowInstance, chain: Sequence[WorkflowInstance], history: Sequence[Event]
    ) -> None:
        """A parent is told how its child ended, and a child that its parent has, each in the transaction of the end."""
        first, last = chain[0], chain[-1]
        self._check_parent_is_told(parent, first, last, history)
        parent_ends, child_ends = self._closed[parent.pk], self._closed[last.pk]
        if self._opened[first.pk] < parent_ends < child_ends:
            self._check_child_is_told(first, parent_ends, child_ends)

    def _check_parent_is_told(
        self, parent: WorkflowInstance, first: WorkflowInstance, last: WorkflowInstance, history: Sequence[Event]
    ) -> None:
        told = [
            entry
            for entry in self._to_chain[parent.chain]
            if entry.type in _CHILD_ENDS and entry.instance == parent.pk
            and json.loads(entry.data)["command"] == first.parent_command
        ]  # fmt: skip
        numbers, ends = [entry.number for entry in told], self._closed[last.pk]
        _expect(numbers == [ends], f"{first.instance_id} ended in transaction {ends}, its parent was told in {numbers}")
        completed = last.status == InstanceStatus.COMPLETED
        _expect(completed is (told[0].type == _CHILD_ENDS[0]), f"the parent of {first.instance_id} was told wrongly")
        # The code may have lost interest in a child that it abandons, or has asked to end.
        of_child = [e for e in history if isinstance(e, ev.CommandEvent | ev.ResultEvent)]
        known = {type(event) for event in of_child if event.command == first.parent_command}
        if self._read[told[0].row] < self._closed[parent.pk] and policy_of(first) != "abandon":
            knows = known & {ev.ChildCompleted, ev.ChildFailed, ev.ChildCancelRequested}
            _expect(knows, f"the parent of {first.instance_id} read how it ended, and does not know it")

    def _check_child_is_told(self, first: WorkflowInstance, parent_ends: int, child_ends: int) -> None:
        policy = policy_of(first)
        sent = [entry for entry in self._to_chain[first.pk] if entry.number <= parent_ends and "parent" in entry.data]
        told = [entry.type for entry in sent if entry.type in _TOLD.values()]
        if policy == "abandon":
            ended = any(_PARENT_ENDED in entry.data for entry in sent if entry.number == parent_ends)
            _expect(not ended, f"{first.instance_id} was told that its parent ended, which had abandoned it")
        else:
            _expect(_TOLD[policy] in told, f"{first.instance_id} was to {policy} with its parent, and was told {told}")


def policy_of(child: WorkflowInstance) -> str:
    return InstanceOptions.decode(child.options).parent_close


def _expect(condition: object, text: str) -> None:
    if not condition:
        raise Violation(text)

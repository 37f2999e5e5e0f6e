"""What travels between the worker and the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from django_workflows.engine.events import ChildScheduled, CommandEvent, ResultEvent
from django_workflows.engine.steps import InstanceInfo, Step
from django_workflows.failures import Failure

# The columns with which inbox rows are inserted.
INBOX_COLUMNS = ("chain_id", "instance_id", "type", "data", "queue", "created_at")


class TaskKey(NamedTuple):
    """The key of an activity task or a timer."""

    instance: int
    command: int


class Address(NamedTuple):
    """Where results for one execution go."""

    chain: int
    instance: int
    queue: str
    command: int


@dataclass(eq=False)
class OpenChain:
    """An instance that this worker owns, as its open row had it when last seen."""

    open_key: str
    chain: int
    instance: int
    queue: str
    history_length: int
    info: InstanceInfo
    parent: Address | None
    root: int | None
    crashes: int = 0
    blocks: int = 0


class InboxRow(NamedTuple):
    """An inbox row as the poll finds it, with what its chain's open row says."""

    id: int
    chain: int
    instance: int | None
    type: str
    data: str
    open_key: str | None = None
    owner: int | None = None
    blocks: int | None = None


class ChildOrder(NamedTuple):
    """An inbox row that orders the start of a child with a chosen id."""

    id: int
    parent: int  # the execution that decided it
    event: ChildScheduled


class StoredEvent(NamedTuple):
    """A row of a history."""

    sequence: int
    time: datetime
    type: str
    data: str


@dataclass
class StoredExecution:
    """All that is stored of one execution, open or closed, for replaying it."""

    info: InstanceInfo
    options: str
    input: str
    history: list[StoredEvent]


@dataclass
class LoadedInstance:
    """A claimed instance with all that is stored for it."""

    chain: OpenChain
    execution: StoredExecution
    inbox: list[InboxRow]


class ClaimedTask(msgspec.Struct, frozen=True, kw_only=True):
    """An activity task leased to this worker: one attempt to run."""

    key: TaskKey
    chain: int
    name: str
    queue: str
    workflow_queue: str
    attempt: int
    crashes: int
    scheduled_at: datetime
    waiting_since: datetime | None  # when this attempt could have begun; None: not known any more
    options: dict[str, Any]
    input: bytes
    heartbeat: str | None = None  # encoded: the details that an earlier attempt reported last
    instance_id: str = ""
    execution_id: str = ""
    workflow: str = ""
    unreadable: str = ""  # what is wrong with the row; such a task is not run


@dataclass
class InstanceStep:
    """One instance's part of a turn."""

    chain: OpenChain
    step: Step
    consumed: list[int] = field(default_factory=list)  # inbox rows
    finished: list[int] = field(default_factory=list)  # commands of tasks leased to this worker that are done
    deferred: list[int] = field(default_factory=list)  # commands whose results came by token
    abandoned: list[CommandEvent] = field(default_factory=list)  # commands that a close leaves without an outcome
    eager: set[int] = field(default_factory=set)  # commands of activities that this worker runs itself
    release: bool = False  # give up ownership with this commit
    blocked: Failure | None = None
    retry_at: datetime | None = None  # of a blocked instance


@dataclass
class Outcome:
    """The end of a leased activity task whose instance is not in this worker's memory."""

    task: ClaimedTask
    event: ResultEvent


@dataclass
class Retry:
    """A failed attempt that is tried again later."""

    task: ClaimedTask
    available_at: datetime
    failure: Failure | None
    counts: bool = True  # False: never began, given back


class Message(NamedTuple):
    """An inbox row that a turn wrote."""

    chain: int
    queue: str
    is_start: bool  # of an execution that nobody owns


@dataclass
class Deferral:
    """An attempt whose function has returned and that somebody else completes."""

    task: ClaimedTask
    expires_at: datetime | None


@dataclass
class Heartbeat:
    """What a running attempt has reported; `details` is JSON, None keeps what is stored."""

    task: ClaimedTask
    details: str | None
    time: datetime


@dataclass
class TurnBatch:
    """Everything that one turn commits."""

    steps: list[InstanceStep] = field(default_factory=list)
    releases: list[OpenChain] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    retries: list[Retry] = field(default_factory=list)
    deferrals: list[Deferral] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    claim_instances: list[str] = field(default_factory=list)
    claim_tasks: list[TaskKey] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(vars(self).values())


@dataclass
class TurnResult:
    """What became of a batch; a step is in exactly one of the lists."""

    committed: list[InstanceStep] = field(default_factory=list)
    busy: list[InstanceStep] = field(default_factory=list)
    lost: list[InstanceStep] = field(default_factory=list)
    claimed_instances: list[str] = field(default_factory=list)
    claimed_tasks: list[ClaimedTask] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    unleased: int = 0  # activity tasks that any worker may run now

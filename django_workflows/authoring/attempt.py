"""The running attempt of an activity, as the code in it sees it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from django_workflows.exceptions import NotInActivityError


@dataclass(frozen=True)
class ActivityInfo:
    """What a running activity may know about itself; `attempt` counts from 1."""

    activity: str
    attempt: int
    instance_id: str
    execution_id: str
    queue: str
    scheduled_at: datetime


@dataclass(frozen=True)
class AttemptContext:
    """The running attempt: its info, and the flag that is set when it is cancelled."""

    info: ActivityInfo
    cancelled: Event


current_attempt: ContextVar[AttemptContext] = ContextVar("django_workflows_attempt")


def require_attempt(what: str) -> AttemptContext:
    """Return the running attempt; raises NotInActivityError naming `what` outside one."""
    context = current_attempt.get(None)
    if context is None:
        raise NotInActivityError(f"{what} can only be called inside an activity; none is running here")
    return context

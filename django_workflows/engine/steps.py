"""What crosses the border of a machine besides events: who it is, and what one step recorded."""

from __future__ import annotations

from datetime import datetime

import msgspec

from django_workflows.failures import Failure

from .events import ClosingEvent, Event


class InstanceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow may know about itself."""

    instance_id: str
    execution_id: str
    workflow: str
    queue: str
    version: str = ""
    started_at: datetime
    parent_instance_id: str | None = None
    attempt: int = 1  # of the workflow's retry policy
    history_length: int = 0
    continue_as_new_suggested: bool = False


class Step(msgspec.Struct):
    """What one step recorded: the accepted input events, each followed by the decisions it led to."""

    time: datetime
    events: list[Event] = []
    rejected: list[tuple[str, Failure]] = []  # the ids of updates that were not accepted, and why
    consumed: int = 0  # how many of the offered input events the machine has seen; the rest came after the close

    @property
    def closing(self) -> ClosingEvent | None:
        last = self.events[-1] if self.events else None
        return last if isinstance(last, ClosingEvent) else None

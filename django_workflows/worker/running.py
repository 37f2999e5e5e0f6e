"""One attempt in this process: its timeouts, what its code may know, and how it ended."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec

from django_workflows import payloads
from django_workflows.authoring.attempt import ActivityInfo, AttemptContext, Beat
from django_workflows.registry import TIMEOUTS, ActivityDefinition
from django_workflows.store.work import ClaimedTask


class AttemptResult(msgspec.Struct, frozen=True):
    """How an attempt ended: a result, an error, a deferral, or nothing of these when it has recorded itself."""

    task: ClaimedTask
    result: bytes | None = None
    error: BaseException | None = None
    is_final: bool = False  # an error that ends the activity whatever its retry policy says
    has_begun: bool = True  # False: its transaction could not be opened, for the error
    deferred_since: float | None = None  # when an attempt began that somebody else completes
    beat: Beat | None = None  # its last heartbeat

    @property
    def is_recorded(self) -> bool:
        """Whether nothing is left to do: an atomic activity recorded its result itself, or lost its lease."""
        return self.result is None and self.error is None and self.deferred_since is None


@dataclass(eq=False)
class Attempt:
    """One attempt in the pool."""

    task: ClaimedTask
    definition: ActivityDefinition
    context: AttemptContext
    queued_at: float
    limits: dict[str, float]  # deadlines by the name of the timeout, monotonic; replaced, never changed
    started: bool = False
    began_at: float = 0.0
    seen_beat: Beat | None = None
    coroutine_task: asyncio.Task[None] | None = None
    is_in_thread: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def deadline(self) -> tuple[float, str]:
        """Return when the first timeout passes, and which one that is; infinity without one."""
        limits, beat = self.limits, self.context.beat
        if beat is not None and "heartbeat" in limits:
            limits = limits | {"heartbeat": beat.at + self.task.options["heartbeat"]}
        return min(((moment, limit) for limit, moment in limits.items()), default=(math.inf, ""))

    def begin(self) -> bool:
        """Start, unless that was ruled out; from now on other timeouts apply than while waiting for a thread."""
        with self.lock:
            if self.started:
                return False
            self.started = True
            self.is_in_thread = not self.definition.is_async
        self.began_at = time.monotonic()
        limits = {limit: moment for limit, moment in self.limits.items() if limit == "schedule_to_close"}
        for limit in ("start_to_close", "heartbeat"):
            if limit in self.task.options:
                limits[limit] = self.began_at + self.task.options[limit]
        self.limits = limits
        return True

    def rule_out_start(self) -> bool:
        """Keep an attempt that still waits for a thread from starting; return whether it was in time."""
        with self.lock:
            was_waiting, self.started = not self.started, True
        return was_waiting


def info_of(task: ClaimedTask) -> ActivityInfo:
    """Return what an attempt may know about itself; raises PayloadError for details that cannot be read."""
    timeouts = {
        f"{limit}_timeout": timedelta(seconds=task.options[limit]) for limit in TIMEOUTS if limit in task.options
    }
    what = f"the heartbeat details of {task.name}"
    details = () if task.heartbeat is None else tuple(payloads.decode(task.heartbeat, list[Any], what=what))
    return ActivityInfo(
        activity=task.name, attempt=task.attempt, workflow=task.workflow, instance_id=task.instance_id,
        execution_id=task.execution_id, queue=task.queue, scheduled_at=task.scheduled_at, heartbeat_details=details,
        **timeouts,
    )  # fmt: skip

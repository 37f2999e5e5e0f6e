"""The running attempt of an activity, as the code in it sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from django_workflows import payloads
from django_workflows.exceptions import NotAllowedInActivityError, NotInActivityError


@dataclass(frozen=True)
class ActivityInfo:
    """What a running activity may know about itself; `attempt` counts from 1.

    `heartbeat_details` is what an earlier attempt reported last, as plain JSON data; empty where there is nothing.
    """

    activity: str
    attempt: int
    workflow: str
    instance_id: str
    execution_id: str
    queue: str
    scheduled_at: datetime
    schedule_to_start_timeout: timedelta | None = None
    start_to_close_timeout: timedelta | None = None
    schedule_to_close_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    heartbeat_details: tuple[Any, ...] = ()


class Beat(NamedTuple):
    """The last heartbeat of an attempt: its encoded details (None: none so far), and its monotonic time."""

    details: bytes | None
    at: float


class AttemptContext:
    """What `activity.*` acts on; the worker looks at it from other threads, so each change is one assignment."""

    def __init__(
        self, describe: Callable[[], ActivityInfo], make_token: Callable[[], str], *, atomic: bool,
        payload_limit: int | None = None,
    ) -> None:  # fmt: skip
        self._describe = describe
        self.is_cancelled = False
        self.beat: Beat | None = None
        self.token: str | None = None  # set: somebody else completes the activity
        self._make_token = make_token
        self._atomic = atomic
        self._payload_limit = payload_limit
        self._was_told = False

    @cached_property
    def info(self) -> ActivityInfo:
        return self._describe()

    def heartbeat(self, details: tuple[Any, ...]) -> None:
        if self.is_cancelled:
            return self._tell_once()
        if details:
            encoded: bytes | None
            encoded = payloads.encode(details, what="the details of a heartbeat", limit=self._payload_limit)
        else:
            encoded = None if self.beat is None else self.beat.details
        self.beat = Beat(encoded, time.monotonic())

    def _tell_once(self) -> None:
        """Raise the cancellation in code that runs in a thread; code on the loop gets it at its await."""
        if not self._was_told and asyncio._get_running_loop() is None:
            self._was_told = True
            raise asyncio.CancelledError(f"attempt {self.info.attempt} of {self.info.activity} is not wanted any more")

    def defer(self) -> str:
        if self._atomic:
            raise NotAllowedInActivityError(
                f"{self.info.activity} is atomic and called activity.defer(): its result is recorded when it returns, "
                "by the transaction of its writes; defer in an activity that is not atomic"
            )
        if self.token is None:
            self.token = self._make_token()
        return self.token


current_attempt: ContextVar[AttemptContext] = ContextVar("django_workflows_attempt")


def require_attempt(what: str) -> AttemptContext:
    """Return the running attempt; raises NotInActivityError naming `what` outside one."""
    context = current_attempt.get(None)
    if context is None:
        raise NotInActivityError(f"{what} can only be called inside an activity; none is running here")
    return context

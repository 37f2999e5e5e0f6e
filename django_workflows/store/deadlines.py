"""When an activity times out: which of its four limits bounds it in which state, and what comes after a failure.

A task *waits* (`available_at` set), is *leased* (`owner_id` set) or *deferred* (neither). `expires_at` is the deadline
of one that waits or is deferred; that of a leased one is empty, because its worker watches it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from django_workflows.exceptions import (
    ActivityTimeout,
    HeartbeatTimeout,
    ScheduleToCloseTimeout,
    ScheduleToStartTimeout,
    StartToCloseTimeout,
)
from django_workflows.failures import Failure
from django_workflows.registry import LONGEST_TIMEOUT, TIMEOUTS
from django_workflows.retries import RetryPolicy

Options = dict[str, Any]

FINAL_LIMITS = ("schedule_to_start", "schedule_to_close")  # those that end the activity, not only an attempt
_ERRORS: dict[str, tuple[type[ActivityTimeout], str]] = {
    "schedule_to_start": (ScheduleToStartTimeout, "waited for a worker longer than"),
    "start_to_close": (StartToCloseTimeout, "ran longer than"),
    "heartbeat": (HeartbeatTimeout, "sent no heartbeat for longer than"),
    "schedule_to_close": (ScheduleToCloseTimeout, "did not end within"),
}


def read_options(text: str) -> tuple[Options, str]:
    """Return a task's options, or those of a single attempt and the reason why they cannot be read."""
    try:
        options: Options = json.loads(text)
        RetryPolicy.from_json(options["retry"])
        for limit in TIMEOUTS:
            if limit in options and not timedelta(0) < timedelta(seconds=options[limit]) <= LONGEST_TIMEOUT:
                raise ValueError(f"{limit} is {options[limit]!r}")
    except Exception as error:
        problem = f"expected the options of an activity task, found {text[:200]!r}: {type(error).__name__}: {error}"
        return {"retry": RetryPolicy(max_attempts=1).to_json()}, problem
    return options, ""


def limits_of_waiting(scheduled_at: datetime, available_at: datetime | None, options: Options) -> dict[str, datetime]:
    """Return the deadlines by timeout of a task that waits for a worker since `available_at`, where that is known."""
    limits = {}
    if "schedule_to_close" in options:
        limits["schedule_to_close"] = _after(scheduled_at, options["schedule_to_close"])
    if "schedule_to_start" in options and available_at is not None:
        limits["schedule_to_start"] = _after(available_at, options["schedule_to_start"])
    return limits


def _after(moment: datetime, seconds: float) -> datetime:
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def waits_until(scheduled_at: datetime, available_at: datetime, options: Options) -> datetime | None:
    """Return the deadline of a task that waits for a worker."""
    return min(limits_of_waiting(scheduled_at, available_at, options).values(), default=None)


def deferred_until(scheduled_at: datetime, started_at: datetime, options: Options) -> datetime | None:
    """Return the deadline of a task whose attempt began at `started_at` and is completed by somebody else."""
    limits = limits_of_waiting(scheduled_at, None, options)
    if "start_to_close" in options:
        limits["start_to_close"] = _after(started_at, options["start_to_close"])
    return min(limits.values(), default=None)


def passed_limit(expires_at: datetime, scheduled_at: datetime, options: Options, *, is_waiting: bool) -> str:
    """Return which timeout set the deadline of a task that waits or is deferred; "" where its options have no such."""
    end = limits_of_waiting(scheduled_at, None, options).get("schedule_to_close")
    if end is not None and end <= expires_at:
        return "schedule_to_close"
    limit = "schedule_to_start" if is_waiting else "start_to_close"
    return limit if limit in options else ""


def timeout_error(limit: str, name: str, attempt: int, options: Options) -> ActivityTimeout:
    """Return the error of an attempt that is over one of its limits."""
    error, what = _ERRORS[limit]
    return error(f"{name}, attempt {attempt}, {what} its {limit}_timeout of {options[limit]:g} s")


def next_attempt(
    error: BaseException | Failure, attempt: int, scheduled_at: datetime, options: Options, now: datetime
) -> datetime | None:
    """Return when an activity is tried again whose attempt has just failed; None when it is not."""
    policy = RetryPolicy.from_json(options["retry"])
    if not policy.may_retry(error, attempt):
        return None
    available_at = now + policy.pause_after(error, attempt, Random())
    end = limits_of_waiting(scheduled_at, None, options).get("schedule_to_close")
    return None if end is not None and available_at >= end else available_at

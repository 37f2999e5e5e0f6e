"""When a failed activity or child workflow is tried again, and how long that waits."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from .exceptions import ActivityError
from .failures import Failure, dotted_name, find_class, mark_of

__all__ = ["DEFAULT_RETRY", "RetryPolicy"]

logger = logging.getLogger("django_workflows.retries")

# Up to here a float of seconds keeps every microsecond.
_LONGEST_INTERVAL = timedelta(days=36_525)
_CANCELLED = dotted_name(asyncio.CancelledError)


@dataclass(frozen=True)
class RetryPolicy:
    """How often a failed activity is tried, and how long the pauses are.

    The pause after the first attempt is `initial_interval`; each further one is `backoff` times as long, up to
    `max_interval`. `jitter` shortens each pause by a random part: 0 not at all, 1 by anything up to all of it.
    `max_attempts=None` never gives up. `non_retryable` takes exception classes, which match their subclasses, and
    names: "CardDeclined" or "shop.payments.CardDeclined", which match the class and its bases.

    >>> policy = RetryPolicy(max_attempts=5, initial_interval=timedelta(seconds=2), non_retryable=(LookupError,))
    >>> [policy.delay_after(attempt).total_seconds() for attempt in (1, 2, 3)]
    [2.0, 4.0, 8.0]
    >>> policy.may_retry(OSError("timed out"), 4), policy.may_retry(OSError("timed out"), 5)
    (True, False)
    >>> policy.may_retry(KeyError("no such order"), 1)
    False
    """

    max_attempts: int | None = None
    initial_interval: timedelta = timedelta(seconds=1)
    backoff: float = 2.0
    max_interval: timedelta = timedelta(seconds=100)
    jitter: float = 0.0
    non_retryable: tuple[type[BaseException] | str, ...] = ()

    def __post_init__(self) -> None:
        attempts = self.max_attempts
        if attempts is not None and (type(attempts) is not int or attempts < 1):
            raise _invalid("max_attempts", "an int of 1 or more, or None for no limit", attempts)
        for name in ("initial_interval", "max_interval"):
            interval = getattr(self, name)
            if not isinstance(interval, timedelta) or not timedelta(0) <= interval <= _LONGEST_INTERVAL:
                raise _invalid(name, "a timedelta from 0 to 100 years, such as timedelta(seconds=5)", interval)
        if self.max_interval < self.initial_interval:
            raise _invalid("max_interval", f"at least initial_interval ({self.initial_interval})", self.max_interval)
        if not _is_number(self.backoff) or not 1 <= self.backoff < math.inf:
            raise _invalid("backoff", "a number of 1 or more", self.backoff)
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise _invalid("jitter", "a number from 0 to 1", self.jitter)
        self._check_non_retryable()

    def _check_non_retryable(self) -> None:
        entries = self.non_retryable
        expected = "a tuple of exception classes and class names, such as (CardDeclined,)"
        if not isinstance(entries, (tuple, list)):
            raise _invalid("non_retryable", expected, entries)
        for entry in entries:
            is_class = isinstance(entry, type) and issubclass(entry, BaseException)
            if not is_class and not (isinstance(entry, str) and entry):
                raise _invalid("non_retryable", expected, entry)
        object.__setattr__(self, "non_retryable", tuple(entries))

    def delay_after(self, attempt: int, random: Random | None = None) -> timedelta:
        """Give the pause after the failed attempt number `attempt`, counted from 1.

        `random` supplies the jitter; without it the pause is the longest one.
        """
        if attempt < 1:
            raise ValueError(f"attempt: expected 1 or more, found {attempt}.")
        longest = self.max_interval.total_seconds()
        try:
            seconds = min(self.initial_interval.total_seconds() * float(self.backoff) ** (attempt - 1), longest)
        except OverflowError:
            seconds = longest if self.initial_interval else 0.0
        if self.jitter and random is not None:
            seconds *= 1 - self.jitter * random.random()
        return timedelta(seconds=seconds)

    def pause_after(self, error: BaseException | Failure, attempt: int, random: Random | None = None) -> timedelta:
        """Give the pause after `error` ended an attempt: its `next_retry_delay`, where it has one, else the policy's.

        >>> error = OSError("too many requests")
        >>> error.next_retry_delay = timedelta(minutes=1)
        >>> RetryPolicy().pause_after(error, 1), RetryPolicy().pause_after(OSError(), 1)
        (datetime.timedelta(seconds=60), datetime.timedelta(seconds=1))
        """
        asked = _next_retry_delay(error)
        return self.delay_after(attempt, random) if asked is None else asked

    def may_retry(self, error: BaseException | Failure, attempt: int) -> bool:
        """Tell whether `error` in attempt number `attempt`, counted from 1, leaves another attempt.

        A cancellation is never retried, nor is an exception with `non_retryable = True`. Of an exception group every
        member has to permit the retry.
        """
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return False
        return self._permits(error)

    def _permits(self, error: BaseException | Failure) -> bool:
        if isinstance(error, Failure):
            stopped, members = error.non_retryable, error.members
        else:
            stopped = mark_of(error, "non_retryable") is True
            members = getattr(error, "exceptions", ()) if isinstance(error, BaseExceptionGroup) else ()
        names = set(_names(error))
        if stopped or _CANCELLED in names:
            return False
        refused = {entry if isinstance(entry, str) else dotted_name(entry) for entry in self.non_retryable}
        return names.isdisjoint(refused) and all(self._permits(member) for member in members)

    def to_json(self) -> dict[str, Any]:
        """Give the policy as plain JSON data; classes become their dotted names.

        >>> RetryPolicy(max_attempts=2, non_retryable=(KeyError,)).to_json()["non_retryable"]
        ['builtins.KeyError']
        """
        return {
            "max_attempts": self.max_attempts,
            "initial_interval": self.initial_interval.total_seconds(),
            "backoff": self.backoff,
            "max_interval": self.max_interval.total_seconds(),
            "jitter": self.jitter,
            "non_retryable": [entry if isinstance(entry, str) else dotted_name(entry) for entry in self.non_retryable],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RetryPolicy:
        """Make the policy that `to_json` described; it matches the same exceptions by their names."""
        return cls(
            max_attempts=data["max_attempts"],
            initial_interval=timedelta(seconds=data["initial_interval"]),
            backoff=data["backoff"],
            max_interval=timedelta(seconds=data["max_interval"]),
            jitter=data["jitter"],
            non_retryable=tuple(data["non_retryable"]),
        )


def _names(error: BaseException | Failure) -> Iterator[str]:
    """Give every name that `non_retryable` may call the error by: its class and its bases, short and dotted."""
    found = find_class(error.type) if isinstance(error, Failure) else type(error)
    for cls in found.__mro__ if found is not None else ():
        yield from (cls.__name__, cls.__qualname__, dotted_name(cls))
    recorded = error.type if isinstance(error, (Failure, ActivityError)) else None
    if recorded is not None:
        yield from (recorded, recorded.rpartition(".")[2])


def _next_retry_delay(error: BaseException | Failure) -> timedelta | None:
    asked = mark_of(error.rebuild() if isinstance(error, Failure) else error, "next_retry_delay")
    if asked is None:
        return None
    try:
        delay = asked if isinstance(asked, timedelta) else timedelta(seconds=asked)
        if timedelta(0) <= delay <= _LONGEST_INTERVAL:
            return delay
    except (TypeError, ValueError, OverflowError):
        pass
    logger.warning(
        "expected next_retry_delay of an exception to be a timedelta or seconds from 0 to 100 years, found %r; "
        "the retry policy's pause is taken", asked,
    )  # fmt: skip
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _invalid(name: str, expected: str, found: object) -> ValueError:
    return ValueError(f"RetryPolicy({name}=...): expected {expected}, found {found!r}.")


DEFAULT_RETRY = RetryPolicy(max_attempts=3)

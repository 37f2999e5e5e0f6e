"""Waiting for a row to say something: polls that begin quick and slow down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from asgiref.sync import sync_to_async

T = TypeVar("T")

_FIRST_LOOK = 0.002
_LONGEST_PAUSE = 0.25


class Wait:
    """The pauses of one wait: short at first, none beyond its end."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._ends = None if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_LOOK

    @property
    def is_over(self) -> bool:
        return self._ends is not None and time.monotonic() >= self._ends

    def next_pause(self) -> float:
        pause, self._pause = self._pause, min(self._pause * 1.5, _LONGEST_PAUSE)
        return pause if self._ends is None else max(0.0, min(pause, self._ends - time.monotonic()))

    def until(self, look: Callable[[], T | None]) -> T:
        """Look again and again until there is something; `look` raises when the wait is over."""
        while (found := look()) is None:
            time.sleep(self.next_pause())
        return found

    async def auntil(self, look: Callable[[], T | None]) -> T:
        """Look from async code, on the caller's own connection, and holding no thread between two looks."""
        while (found := await sync_to_async(look)()) is None:
            await asyncio.sleep(self.next_pause())
        return found

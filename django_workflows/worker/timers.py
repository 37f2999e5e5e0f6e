"""The due times of held instances' timers; the rows in the table are for instances that nobody holds."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from django_workflows.engine.events import TimerStarted


class TimerHeap:
    """Timers by due time, then by the order of arming; cancelled ones are left in, their machine ignores them."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, int, int]] = []  # due time, order, chain, command
        self._order = itertools.count()

    def arm(self, chain: int, event: TimerStarted) -> None:
        heapq.heappush(self._entries, (event.fire_at.timestamp(), next(self._order), chain, event.command))

    @property
    def next_due(self) -> float | None:
        return self._entries[0][0] if self._entries else None

    def pop_due(self, now: float) -> Iterator[tuple[int, int]]:
        """Yield (chain, command) of the timers due by `now`, earliest first."""
        while self._entries and self._entries[0][0] <= now:
            _, _, chain, command = heapq.heappop(self._entries)
            yield chain, command

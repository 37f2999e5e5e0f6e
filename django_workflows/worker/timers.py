"""The due times of held instances' timers; the rows in the table are for instances that nobody holds."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from django_workflows.engine.events import TimerStarted
from django_workflows.store.work import OpenChain, TaskKey


class TimerHeap:
    """Timers by due time, then by the order of arming; cancelled ones are left in, their machine ignores them."""

    def __init__(self) -> None:
        # Due time, order, chain, key. The key names the execution: commands count anew after continue-as-new.
        self._entries: list[tuple[float, int, int, TaskKey]] = []
        self._order = itertools.count()

    def arm(self, chain: OpenChain, event: TimerStarted) -> None:
        key = TaskKey(chain.instance, event.command)
        heapq.heappush(self._entries, (event.fire_at.timestamp(), next(self._order), chain.chain, key))

    @property
    def next_due(self) -> float | None:
        return self._entries[0][0] if self._entries else None

    def pop_due(self, now: float) -> Iterator[tuple[int, TaskKey]]:
        """Yield (chain, key) of the timers due by `now`, earliest first."""
        while self._entries and self._entries[0][0] <= now:
            _, _, chain, key = heapq.heappop(self._entries)
            yield chain, key

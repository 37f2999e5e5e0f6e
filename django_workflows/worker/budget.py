"""How long recurring work may rest, so that it takes no more than a share of the time."""

from __future__ import annotations

_LONGEST_BLOCK = 60.0  # seconds between two tries of a blocked instance
_LONGEST = 30.0  # a process that stood still in the middle of it must not rest for hours


def rest_after(cost: float, *, share: float, shortest: float) -> float:
    """Return how long to rest after work that took so many seconds."""
    return min(max(shortest, cost / share), max(shortest, _LONGEST))


def rest_of_blocked(blocks: int) -> float:
    """Return how long an instance rests that has been blocked so many times in a row before."""
    return min(2.0 ** min(blocks, 10), _LONGEST_BLOCK)  # the power of a thousand blocks is no number any more

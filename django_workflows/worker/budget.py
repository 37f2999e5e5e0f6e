"""How long recurring work may rest, so that it takes no more than a share of the time."""

from __future__ import annotations

_LONGEST = 30.0  # a process that stood still in the middle of it must not rest for hours


def rest_after(cost: float, *, share: float, shortest: float) -> float:
    """Return how long to rest after work that took so many seconds."""
    return min(max(shortest, cost / share), max(shortest, _LONGEST))

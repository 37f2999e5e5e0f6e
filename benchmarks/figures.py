"""Numbers from many measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import ceil


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile in milliseconds; of few samples the latter is the largest."""
    ordered = sorted(seconds)
    return {"p50": statistics.median(ordered) * 1000, "p99": ordered[ceil(0.99 * len(ordered)) - 1] * 1000}


def median(values: Sequence[float]) -> float:
    return statistics.median(values)

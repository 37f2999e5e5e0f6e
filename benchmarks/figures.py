"""Numbers from many measurements."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile in milliseconds; of few samples the latter is the largest."""
    ordered = sorted(seconds)
    return {"p50": statistics.median(ordered) * 1000, "p99": ordered[ceil(0.99 * len(ordered)) - 1] * 1000}


def in_commits(chain: Mapping[str, Any]) -> float:
    """Return how many commits, of the same minute, a sequential activity takes."""
    return float(chain["per_activity"]["p50"] / chain["commit"]["p50"])


def median(values: Sequence[float]) -> float:
    return statistics.median(values)

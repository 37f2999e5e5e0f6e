"""A quarter of the seeds, and what they must have come across."""

from __future__ import annotations

from collections import Counter

from tests.simulation.simulation import run

QUARTER = 128
COVERED = (
    "crash", "crash before a commit", "crash after a commit", "ambiguous commit", "connection lost",
    "connection lost before a commit", "rows locked by somebody", "frozen", "dead lease taken over", "fenced",
    "worker leaves", "eviction", "long transaction", "activity", "another attempt", "signal", "signal with start",
    "cancel request", "termination", "update", "update of an unknown name", "update with start", "removal",
    "undelivered signal", "slow step", "completion by token", "BackgroundTaskFailed",
    # And of the histories:
    "TimerFired", "TimerCancelled", "ActivityFailed", "ActivityCancelled", "SignalReceived", "MessageDelivered",
    "MessageRefused", "ChildStarted", "ChildCompleted", "ChildFailed", "ChildCancelRequested", "CancelRequested",
    "TerminateRequested", "UpdateCompleted", "InstanceCompleted", "InstanceFailed", "InstanceCancelled",
    "InstanceTerminated", "InstanceContinuedAsNew",
)  # fmt: skip


def check_quarter(number: int) -> None:
    """Run 128 seeds: nothing is violated, and they have seen everything that they are there for."""
    facts: Counter[str] = Counter()
    for seed in range(number * QUARTER, (number + 1) * QUARTER):
        result = run(seed)
        assert result.violation is None, result.report()
        facts.update(result.facts)
    missing = [fact for fact in COVERED if not facts[fact]]
    assert not missing, f"no seed of this quarter came across {missing}"

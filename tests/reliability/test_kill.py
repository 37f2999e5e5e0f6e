"""Workers killed at random: everything finishes, atomic effects happen once, histories have no gap and no double."""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from django.db.models import Count, Max, Min

from django_workflows.models import ActivityTask, HistoryEvent, OpenInstance, Timer, WorkflowInstance
from tests.reliability.processes import worker_processes
from tests.reliability.workflows import mixed
from tests.testapp.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

INSTANCES, STEPS = 100, 10


@pytest.mark.parametrize("cache_size", [pytest.param(1000, id="sticky"), pytest.param(0, id="cold")])
def test_kill_storm_loses_nothing_and_doubles_nothing(cache_size: int) -> None:
    mixed.start_many([(f"w{number}", STEPS) for number in range(INSTANCES)])
    with worker_processes(4, lease=2.0, cache_size=cache_size, arguments=("--threads", "2")) as fleet:
        assert fleet.kill_at_random(
            done=lambda: not OpenInstance.objects.exists(), progress=Effect.objects.count, every=60, most=8
        ), unfinished()
        # The last replacement may be told to stop before it listens to signals.
        assert set(fleet.stop()) <= {0, -signal.SIGTERM}
    assert fleet.kills >= 3, "the work was done before the workers could be killed"
    assert_every_instance_completed()
    assert_effects_happened_once()
    assert_histories_are_whole()
    assert not ActivityTask.objects.exists()
    assert not Timer.objects.exists()


def unfinished() -> str:
    rows = WorkflowInstance.objects.exclude(status="completed").values_list("status", "failure")[:5]
    tasks = list(ActivityTask.objects.values("name", "attempt", "crashes", "owner_id", "available_at")[:5])
    return f"unfinished: {list(rows)}, tasks: {tasks}, open: {list(OpenInstance.objects.values()[:5])}"


def assert_every_instance_completed() -> None:
    statuses = Counter(WorkflowInstance.objects.values_list("status", flat=True))
    assert statuses == {"completed": INSTANCES}
    expected = str(sum(step + 1 if step % 2 else 1 for step in range(STEPS)))
    assert set(WorkflowInstance.objects.values_list("result", flat=True)) == {expected}


def assert_effects_happened_once() -> None:
    counts = Counter(Effect.objects.values_list("key", flat=True))
    assert set(counts.values()) == {1}
    assert len(counts) == INSTANCES * STEPS // 2


def assert_histories_are_whole() -> None:
    rows = HistoryEvent.objects.values("instance_id").annotate(
        n=Count("sequence"), low=Min("sequence"), high=Max("sequence")
    )
    assert all(row["low"] == 1 and row["high"] == row["n"] for row in rows)
    # One start, one decision and one outcome for each activity, one end.
    assert {row["n"] for row in rows} == {2 + 2 * STEPS}

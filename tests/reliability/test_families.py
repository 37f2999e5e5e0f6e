"""Workers killed at random while parents and children write to each other: each child starts once, all end."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from django_workflows.models import HistoryEvent, InboxEvent, OpenInstance, WorkflowInstance
from tests.reliability.processes import worker_processes
from tests.reliability.workflows import family
from tests.testapp.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

FAMILIES = 8


@pytest.mark.parametrize("cache_size", [pytest.param(1000, id="sticky"), pytest.param(0, id="cold")])
def test_kill_storm_leaves_families_whole(cache_size: int) -> None:
    family.start_many([(f"f{number}",) for number in range(FAMILIES)])
    with worker_processes(3, lease=2.0, cache_size=cache_size, arguments=("--threads", "4")) as fleet:
        assert fleet.kill_at_random(
            done=lambda: not OpenInstance.objects.exists(), progress=Effect.objects.count, every=20, most=5
        ), list(WorkflowInstance.objects.open().values("name", "status", "failure"))
        assert set(fleet.stop()) <= {0, -signal.SIGTERM}
    assert fleet.kills >= 3, "the work was done before the workers could be killed"
    parents = WorkflowInstance.objects.filter(name="reliability.family")
    assert set(parents.values_list("status", "result")) == {("completed", "25")}
    first_executions = WorkflowInstance.objects.filter(chain_id=None, attempt=1).values_list("name", flat=True)
    assert Counter(first_executions) == {
        "reliability.family": FAMILIES, "reliability.member": 6 * FAMILIES, "reliability.second_try": FAMILIES,
        "reliability.rounds": FAMILIES,
    }  # fmt: skip
    assert HistoryEvent.objects.filter(type="ChildStarted").count() == 5 * FAMILIES
    assert set(Counter(Effect.objects.values_list("key", flat=True)).values()) == {1}
    assert not InboxEvent.objects.filter(type="SignalReceived").exists()

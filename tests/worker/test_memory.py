"""What becomes of instances in a worker's memory when the process stands still at a bad moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from django_workflows import StepTimeLimitExceeded
from django_workflows.engine.steps import InstanceInfo
from django_workflows.store.work import OpenChain
from django_workflows.worker import stepping
from django_workflows.worker.guards import StepWatch
from django_workflows.worker.held import Held, StickyCache

T = TypeVar("T")


class HitAtTheFirstBytecode(StepWatch):
    """Finds each call too slow before it has done anything, as after a process was stopped there."""

    def call(self, label: str, function: Callable[[], T]) -> T:
        raise StepTimeLimitExceeded(label)


def test_an_instance_leaves_memory_although_the_process_stood_still_on_the_way() -> None:
    info = InstanceInfo(instance_id="a", execution_id="b", workflow="c", queue="d", started_at=datetime.now(UTC))
    chain = OpenChain(
        open_key="a", chain=1, instance=1, queue="d", history_length=0, info=info, parent=None, root=None
    )  # fmt: skip
    cache, held = StickyCache(10), Held(chain, None)
    cache.add(held)
    stepping.drop(held, cache, HitAtTheFirstBytecode(2.0))
    assert cache.get(1) is None

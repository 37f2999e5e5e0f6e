"""What a worker process asks of Python's garbage collector."""

from __future__ import annotations

import gc

from django_workflows.worker.garbage import collected_rarely


def test_garbage_is_collected_rarely_and_afterwards_as_before() -> None:
    before = gc.get_threshold()
    with collected_rarely():
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0

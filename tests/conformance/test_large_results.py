"""Several large results in one turn."""

from __future__ import annotations

import pytest

from django_workflows import workflow
from django_workflows.worker.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)

SIZE = 1_500_000


@workflow(name="large_results.text")
async def text() -> str:
    return "x" * SIZE


def test_results_that_together_exceed_a_packet_are_all_stored(worker: Worker) -> None:
    handles = text.start_many([()] * 16)
    assert {len(handle.result(timeout=30)) for handle in handles} == {SIZE}

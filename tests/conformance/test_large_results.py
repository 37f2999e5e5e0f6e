"""Several large values in one turn or call: together they exceed a packet of MySQL's."""

from __future__ import annotations

import asyncio

import pytest

from django_workflows import workflow
from django_workflows.models import WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)

SIZE = 1_500_000
COUNT = 16


@workflow(name="large_results.text")
async def text() -> str:
    return "x" * SIZE


@workflow(name="large_results.length")
async def length(value: str) -> int:
    return len(value)


@workflow(name="large_results.children")
async def children() -> int:
    return sum(await asyncio.gather(*[length("x" * SIZE) for _ in range(COUNT)]))


@workflow(name="large_results.rounds")
async def rounds(done: bool = False) -> None:
    if not done:
        workflow.set_attributes(value="x" * SIZE)
        workflow.continue_as_new(True)


def test_results_that_together_exceed_a_packet_are_all_stored(worker: Worker) -> None:
    handles = text.start_many([()] * COUNT)
    assert {len(handle.result(timeout=30)) for handle in handles} == {SIZE}


def test_children_with_inputs_that_together_exceed_a_packet_all_start() -> None:
    with running_worker():
        assert children.start().result(timeout=60) == COUNT * SIZE


def test_attributes_that_together_exceed_a_packet_are_all_carried_on() -> None:
    handles = rounds.start_many([()] * COUNT)
    with running_worker():
        for handle in handles:
            handle.result(timeout=60)
    last = WorkflowInstance.objects.filter(status="completed")
    assert [len(row.attributes["value"]) for row in last] == [SIZE] * COUNT

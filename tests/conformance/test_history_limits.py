"""Long histories on a real worker: a warning at one setting, failure at another, a way out by continue-as-new."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from django.test import override_settings

from django_workflows import HistoryLimitExceeded, WorkflowFailed, activity, workflow
from django_workflows.models import InstanceStatus, WorkflowInstance
from django_workflows.worker.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def short_limits() -> Iterator[None]:
    with override_settings(DJANGO_WORKFLOWS={"HISTORY_WARNING": 20, "HISTORY_LIMIT": 40}):
        yield


@activity(name="history_limits.tick")
def tick(number: int) -> int:
    return number + 1


@workflow(name="history_limits.for_ever")
async def for_ever() -> None:
    number = 0
    while True:
        number = await tick(number)


@workflow(name="history_limits.renewing")
async def renewing(number: int) -> int:
    while not workflow.info().continue_as_new_suggested:
        number = await tick(number)
        if number == 30:
            return number
    workflow.continue_as_new(number)


def test_an_execution_is_warned_of_once_and_fails_at_the_limit(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="django_workflows.worker"):
        handle = for_ever.start()
        with pytest.raises(WorkflowFailed, match="HISTORY_LIMIT is 40") as caught:
            handle.result(timeout=20)
    assert isinstance(caught.value.__cause__, HistoryLimitExceeded)
    warnings = [record.getMessage() for record in caplog.records if "has a history of" in record.getMessage()]
    assert len(warnings) == 1
    assert "fails at 40 (HISTORY_LIMIT)" in warnings[0]
    row = handle.describe()
    assert (row.status, row.history_length) == (InstanceStatus.FAILED, 41)


def test_a_workflow_that_continues_as_new_when_that_is_suggested_goes_on(worker: Worker) -> None:
    handle = renewing.start(0)
    assert handle.result(timeout=20) == 30
    lengths = WorkflowInstance.objects.filter(name="history_limits.renewing").values_list("history_length", flat=True)
    assert len(lengths) > 2
    assert max(lengths) <= 24

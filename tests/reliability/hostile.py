"""Instances with a row in every table, to be spoilt, and a look at what a worker and the pages make of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle

import pytest
from django.test import Client
from django.urls import reverse

from django_workflows import RetryPolicy, Signal, WorkflowClass, activity, workflow, workflow_of
from django_workflows import WorkflowHandle as Handle
from django_workflows.management.command import ExitCode
from django_workflows.models import ActivityTask, InboxEvent, Timer, WorkflowInstance, WorkflowUpdate
from django_workflows.testing import running_worker
from tests.conformance.waiting import eventually
from tests.management.calls import attempt

poke = Signal("poke", str)

# A blocked instance is tried again after 1, 2, 4 s, so a few lines each while a test looks.
_LINES_EACH = 8
_LEASE = timedelta(seconds=6)  # tasks of workers that never were are looked for as often


@activity(name="hostile.served", retry=RetryPolicy(max_attempts=1))
def served(text: str) -> str:
    return text


@activity(name="hostile.elsewhere", queue="hostile.nobody", retry=RetryPolicy(max_attempts=1))
def elsewhere(text: str) -> str:
    return text


@workflow(name="hostile.victim")
class Victim(WorkflowClass):
    """Has a task, a timer, an accepted update, attributes and a history, and ends with the second signal."""

    def __init__(self) -> None:
        self.last = ""

    @workflow.update
    async def ask(self) -> str:
        await workflow.wait_condition(lambda: bool(self.last))
        return self.last

    async def run(self, text: str) -> str:
        workflow.set_attributes(text=text)
        work = [asyncio.create_task(elsewhere(text)), asyncio.create_task(workflow.sleep(3600))]
        first = await poke.receive()
        workflow.set_attributes(first=first)
        await served(first)
        self.last = await poke.receive()
        if work[0].done():
            work[0].result()
        for task in work:
            task.cancel()
        return first + self.last


@workflow(name="hostile.healthy")
async def healthy(text: str) -> str:
    workflow.set_attributes(text=text)
    await workflow.sleep(0.01)
    return await served(text) + await poke.receive()


def victims(count: int) -> list[Handle[str]]:
    """Return instances that have gone as far as they can."""
    handles: list[Handle[str]] = workflow_of(Victim).start_many([("a",)] * count)
    for handle in handles:
        handle.start_update(Victim.ask)
    with running_worker():
        eventually(lambda: Timer.objects.count() == count and ActivityTask.objects.count() == count, timeout=60)
        eventually(lambda: WorkflowUpdate.objects.filter(status="accepted").count() == count, timeout=60)
        eventually(lambda: not InboxEvent.objects.exists(), timeout=60)
    return handles


@contextmanager
def healthy_worker(caplog: pytest.LogCaptureFixture, hostile: int) -> Iterator[None]:
    """Run a worker that completes healthy instances before and after the block, lives on and logs little."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="django_workflows"), running_worker(lease=_LEASE) as worker:
        incarnation = worker.id
        assert_serves()
        yield
        assert_serves()
        assert worker.id == incarnation, caplog.text[:3000]
    assert "unexpected error" not in caplog.text
    assert "database trouble" not in caplog.text
    assert len(caplog.records) <= 10 + _LINES_EACH * hostile, caplog.text[:3000]
    assert max(len(record.getMessage()) for record in caplog.records) < 5000


def assert_serves() -> None:
    handle = healthy.start("healthy")
    eventually(lambda: len(handle.history()) >= 6, timeout=60)
    handle.signal(poke, "!")
    assert handle.result(timeout=60) == "healthy!"


def assert_shown(client: Client, instances: list[WorkflowInstance]) -> None:
    """The pages and commands show the instances, whatever their rows hold."""
    for page in ("workflowinstance_changelist", "worker_changelist"):
        assert client.get(reverse(f"admin:django_workflows_{page}")).status_code == 200
    for format in ("text", "json"):
        assert attempt("listworkflows", "--format", format).error is None
    assert attempt("workflowpatches").error is None
    for row, format in zip(instances, cycle(["text", "json"])):
        url = reverse("admin:django_workflows_workflowinstance_change", args=[row.pk])
        assert client.get(url).status_code == 200, row
        show = attempt("showworkflow", row.instance_id, "--history", "--payloads", "--format", format)
        assert show.error is None, row
        result = attempt("workflowresult", row.instance_id, "--timeout", "0s", "--format", format)
        assert result.error is None or result.error.returncode in list(ExitCode), row

"""Rows that no release ever wrote: each harms its own instance at most, never a worker, and is shown as it is."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from django_workflows import InstanceNotFound
from django_workflows.models import ActivityTask, InboxEvent, OpenInstance, Worker, WorkflowInstance
from tests.conformance.waiting import eventually

from .hostile import assert_shown, healthy, healthy_worker, poke, victims
from .spoilt import AT_THE_END_OF_TIME, INBOX, LONG_AGO, TABLES, Case

pytestmark = pytest.mark.django_db(transaction=True)


def unexpected(cases: dict[int, Case]) -> dict[str, str]:
    """Return the cases whose instance has not come to where it must, with its status."""
    found = WorkflowInstance.objects.filter(pk__in=cases).values_list("pk", "status")
    return {cases[pk].name: status for pk, status in found if status not in cases[pk].becomes.split()}


@pytest.mark.parametrize("table", TABLES)
def test_spoilt_row_harms_its_instance_alone(
    table: str, admin_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    handles = victims(len(TABLES[table]))
    rows = [handle.describe() for handle in handles]
    cases = dict(zip((row.pk for row in rows), TABLES[table], strict=True))
    for handle, row in zip(handles, rows, strict=True):
        handle.signal(poke, "b")
        cases[row.pk].spoil(row)
    assert_shown(admin_client, rows)
    with healthy_worker(caplog, len(cases)):
        eventually(lambda: not ActivityTask.objects.filter(queue="default").exists(), timeout=60)
        for handle in handles:
            handle.signal(poke, "c")
        eventually(lambda: not unexpected(cases), timeout=60)


def test_spoilt_rows_in_the_inbox_of_closed_instances_are_collected(
    admin_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    handles = victims(len(INBOX))
    rows = [handle.describe() for handle in handles]
    for handle, row, case in zip(handles, rows, INBOX, strict=True):
        handle.terminate()
        case.spoil(row)
    with healthy_worker(caplog, len(INBOX)):
        eventually(lambda: not InboxEvent.objects.exclude(type="SignalReceived", queue=None).exists(), timeout=60)
        assert_shown(admin_client, rows)


def test_open_row_without_its_execution_is_deleted_and_its_id_is_free_again(caplog: pytest.LogCaptureFixture) -> None:
    lost = healthy.using(instance_id="lost").start("lost")
    WorkflowInstance.objects.filter(pk=lost.describe().pk).delete()
    with healthy_worker(caplog, 1):
        eventually(lambda: not OpenInstance.objects.filter(queue="default").exists(), timeout=60)
        with pytest.raises(InstanceNotFound):
            lost.describe()
        again = healthy.using(instance_id="lost").start("again")
        again.signal(poke, "!")
        assert again.result(timeout=60) == "again!"


def test_spoilt_worker_rows_harm_nobody(admin_client: Client, caplog: pytest.LogCaptureFixture) -> None:
    now = timezone.now()
    for queues in ([], {"default": 1}, "default", 7, [["default"], None, 7]):
        for state in ("alive", "dead", "odd"):
            for lease_until in (LONG_AGO, now, AT_THE_END_OF_TIME):
                Worker.objects.create(
                    host="x" * 255, process_id=-1, queues=queues, state=state, slots=-5, beat=2**62,
                    lease_until=lease_until, started_at=AT_THE_END_OF_TIME,
                )  # fmt: skip
    handles = victims(1)
    OpenInstance.objects.update(owner_id=Worker.objects.filter(state="odd").first().pk)  # type: ignore[union-attr]
    with healthy_worker(caplog, 9):
        handles[0].signal(poke, "b")
        handles[0].signal(poke, "c")
        assert handles[0].result(timeout=60) == "bc"
        assert_shown(admin_client, [handles[0].describe()])

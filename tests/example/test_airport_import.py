"""Imports from the upload to the published airports, with a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from django_workflows import WorkflowCancelled
from django_workflows.testing import running_worker
from example_project.imports.models import Airport, ImportJob
from example_project.imports.views import SAMPLE
from example_project.imports.workflows import import_airports

from .conftest import wait_for
from .test_imports import GOOD, HEADER, upload_form

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def worker(transactional_db: None) -> Iterator[None]:
    with running_worker():
        yield


def upload(client: Client, content: bytes, pause: float = 0) -> ImportJob:
    client.post("/airports/imports/new/", {**upload_form(content), "pause": pause})
    return ImportJob.objects.latest("pk")


def wait_for_status(job: ImportJob, status: ImportJob.Status, seconds: float = 30) -> None:
    def reached() -> bool:
        job.refresh_from_db()
        return job.status == status

    wait_for(reached, f"{job} to be {status}", seconds)


def decide(client: Client, job: ImportJob, decision: str) -> ImportJob.Status:
    client.post(f"/airports/imports/{job.pk}/decide/", {"decision": decision})
    return import_airports.handle(job.instance_id).result(timeout=30)


def counts(job: ImportJob) -> tuple[int, int, int, int]:
    report = job.report
    return report["added"], report["updated"], report["unchanged"], report["rejected_count"]


@pytest.mark.usefixtures("worker")
class TestImport:
    def test_same_file_twice_gives_every_airport_once(self, staff_client: Client) -> None:
        for expected in [(3376, 0, 0, 0), (0, 0, 3376, 0)]:
            job = upload(staff_client, SAMPLE.read_bytes())
            wait_for_status(job, ImportJob.Status.AWAITING_APPROVAL)
            assert counts(job) == expected
            assert decide(staff_client, job, "publish") is ImportJob.Status.PUBLISHED
            assert Airport.objects.filter(published=True).count() == 3376

    def test_reports_added_updated_unchanged_and_rejected(self, staff_client: Client) -> None:
        first = upload(staff_client, (HEADER + GOOD + GOOD.replace("ABC", "ABD")).encode())
        wait_for_status(first, ImportJob.Status.AWAITING_APPROVAL)
        decide(staff_client, first, "publish")
        lines = [GOOD, GOOD.replace("ABC,Field", "ABD,Renamed"), GOOD.replace("ABC", "ABE"), "bad\n"]
        second = upload(staff_client, (HEADER + "".join(lines)).encode())
        wait_for_status(second, ImportJob.Status.AWAITING_APPROVAL)
        assert counts(second) == (1, 1, 1, 1)
        assert "the number of fields differs" in staff_client.get(second.get_absolute_url()).text
        assert Airport.objects.get(iata="ABD").name == "Renamed"

    def test_discarded_import_takes_back_what_it_added(self, staff_client: Client) -> None:
        job = upload(staff_client, (HEADER + GOOD).encode())
        wait_for_status(job, ImportJob.Status.AWAITING_APPROVAL)
        assert decide(staff_client, job, "discard") is ImportJob.Status.DISCARDED
        assert not Airport.objects.exists()

    def test_cancelled_import_takes_back_what_it_added(self, staff_client: Client) -> None:
        job = upload(staff_client, SAMPLE.read_bytes(), pause=30)
        wait_for(Airport.objects.exists, "the first airports")
        staff_client.post(f"/airports/imports/{job.pk}/cancel/")
        with pytest.raises(WorkflowCancelled):
            import_airports.handle(job.instance_id).result(timeout=30)
        job.refresh_from_db()
        assert job.status == ImportJob.Status.CANCELLED
        assert not Airport.objects.exists()

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            (b"iata;name\n", "Line 1: expected the columns iata, name"),
            (HEADER.encode() + b"\xff", "Line 2: byte 0xff is not UTF-8"),
            (HEADER.encode() + b"bad\n", "No line of the file can be imported. line 2: the number of fields"),
        ],
    )
    def test_malformed_file_is_reported_on_the_page(self, staff_client: Client, content: bytes, error: str) -> None:
        job = upload(staff_client, content)
        wait_for_status(job, ImportJob.Status.FAILED)
        assert error in staff_client.get(job.get_absolute_url()).text
        assert import_airports.handle(job.instance_id).result(timeout=30) is ImportJob.Status.FAILED
        assert not Airport.objects.exists()


def start_worker() -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "manage.py",
        "runworkflowworker",
        "--settings",
        "tests.example.worker_settings",
        "--no-reload",
    ]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)


def test_killed_workers_lose_and_repeat_nothing(
    staff_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_MEDIA_ROOT", os.fspath(tmp_path))
    job = upload(staff_client, SAMPLE.read_bytes(), pause=0.3)
    for rows in (600, 1800):
        with start_worker() as process:
            try:
                wait_for_rows(job, rows, process)
            finally:
                process.send_signal(signal.SIGKILL)
        assert stored(job) < 3376
    with start_worker() as process:
        try:
            wait_for_status(job, ImportJob.Status.AWAITING_APPROVAL)
            assert decide(staff_client, job, "publish") is ImportJob.Status.PUBLISHED
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert counts(job) == (3376, 0, 0, 0)
    assert Airport.objects.filter(published=True).count() == job.done == 3376


def wait_for_rows(job: ImportJob, rows: int, process: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: stored(job) >= rows or process.poll() is not None, f"{rows} rows stored")
    assert process.returncode is None, "the worker ended by itself"


def stored(job: ImportJob) -> int:
    job.refresh_from_db()
    return job.done

"""Workers hear of work in other processes where the database can tell them, and find it by polling where it cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker, WorkerOptions
from tests.testapp.workflows import greet

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def unannounced_worker() -> Iterator[Worker]:
    """Run a worker that is not told in-process: what it hears, it hears through the database."""
    worker = Worker(WorkerOptions())
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        assert worker.ready.wait(30)
        yield worker
    finally:
        worker.stop()
        thread.join(30)


@pytest.mark.skipif(connection.vendor == "mysql", reason="MariaDB has no way to tell; its workers poll")
def test_a_start_reaches_a_worker_that_hardly_polls(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"POLL_INTERVAL_MIN": 60.0, "POLL_INTERVAL_MAX": 60.0}
    with unannounced_worker():
        assert greet.start("hello").result(timeout=20) == "hello world"


def test_polling_alone_suffices(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_workflows.wakeups._announce", lambda alias: None)
    monkeypatch.setattr("django_workflows.worker.worker.listener_for", lambda *args: _deaf())
    with running_worker():
        assert greet.start("hello").result(timeout=20) == "hello world"


def _deaf() -> Any:
    from django_workflows.worker.listener import Listener

    return Listener()

"""The server stopped and killed under working workers: they wait for it and go on, and say so in few lines."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from django.db import connection

from django_workflows.models import HistoryEvent, OpenInstance
from django_workflows.models import Worker as WorkerRow
from tests.conformance.waiting import assert_tables_consistent, eventually
from tests.testapp.models import Effect

from .logs import assert_outages_are_told, said
from .processes import worker_processes
from .servers import private_server
from .workflows import mixed

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="there is no server"),
]

INSTANCES, STEPS = 40, 6
LEASE = 1.5
THREADS = ("--threads", "2")
REASONS = {
    "postgresql": "server closed the connection|terminating connection|Connection refused|starting up|shutting down",
    "mysql": "Lost connection|gone away|Can't connect|[Ss]hutdown|Connection was killed",
}


def test_restarts_of_the_server_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        private_server() as server,
        worker_processes(
            2, lease=LEASE, log=log, arguments=("--threads", "2"), environment=server.environment
        ) as fleet,
    ):
        handles = mixed.start_many([(f"w{number}", STEPS) for number in range(INSTANCES)])
        for round, way in enumerate(server.stops, start=1):
            eventually(lambda round=round: results() > round * 50, 60)  # type: ignore[misc]
            server.stop(way)
            eventually(lambda round=round: failures(log) >= 2 * round, 60)  # type: ignore[misc]
            wait_for_leases_to_run_out()
            server.start()
        assert [handle.result(timeout=60) for handle in handles] == [15] * INSTANCES
        assert set(WorkerRow.objects.values_list("state", flat=True)) == {WorkerRow.State.ALIVE}
        assert WorkerRow.objects.count() == 2
        assert fleet.stop() == [0, 0]
        assert not OpenInstance.objects.exists()
        keys = list(Effect.objects.values_list("key", flat=True))
        assert len(keys) == len(set(keys)) == INSTANCES * STEPS // 2
        assert_tables_consistent()
    assert_outages_are_told(log, REASONS[connection.vendor], most=8, workers=2)
    assert not said(log, "ERROR")


def wait_for_leases_to_run_out() -> None:
    ends = time.monotonic() + LEASE
    eventually(lambda: time.monotonic() > ends)


def results() -> int:
    return HistoryEvent.objects.filter(type="ActivityCompleted").count()


def failures(log: Path) -> int:
    return log.read_text().count("the database fails")

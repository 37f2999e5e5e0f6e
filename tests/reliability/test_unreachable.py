"""A server that nobody reaches, or that only those reach who are connected already."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from django_workflows.models import ActivityTask
from tests.conformance.waiting import assert_tables_consistent, eventually
from tests.testapp.models import Effect

from .logs import assert_outages_are_told, said
from .processes import worker_processes
from .proxy import proxy
from .workflows import mixed, single_attempts

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="there is no server"),
]


def test_worker_that_starts_while_the_database_is_away_waits_for_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    handle = mixed.start("early", 2)
    with proxy() as line:
        line.close()
        with worker_processes(1, lease=30, log=log, environment=line.environment) as fleet:
            eventually(lambda: "the database fails" in log.read_text(), 60)
            line.open()
            assert handle.result(timeout=60) == 3
            assert fleet.stop() == [0]
    assert_outages_are_told(log, "connection|Lost connection", most=1)


def test_worker_that_is_told_to_stop_while_the_database_is_away_leaves_after_its_grace_period(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ("--grace", "0.5")
    with (
        proxy() as line,
        worker_processes(1, lease=1.5, log=log, environment=line.environment, arguments=arguments) as fleet,
    ):
        handle = mixed.start("stopped", 12)
        eventually(Effect.objects.exists, 60)
        line.close()
        eventually(lambda: "the database fails" in log.read_text(), 60)
        assert fleet.stop() == [0]
    assert "leaves while the database fails" in said(log, "WARNING")[-1]
    with worker_processes(1, lease=1.5):
        assert handle.result(timeout=60) == sum(step + 1 if step % 2 else 1 for step in range(12))


def test_atomic_activity_that_gets_no_connection_has_not_begun(tmp_path: Path) -> None:
    """It keeps its attempts, while the turns go on over the connection that they have."""
    log = tmp_path / "log"
    with proxy() as line, worker_processes(1, lease=30, log=log, environment=line.environment) as fleet:
        mixed.start("before", 2).result(timeout=60)
        line.is_open = False
        handles = single_attempts.start_many([(f"w{number}", 2) for number in range(5)])
        refused = ActivityTask.objects.exclude(last_failure=None)
        eventually(lambda: refused.count() == 5 and "cannot begin" in log.read_text(), 60)
        assert set(refused.filter(owner_id=None).values_list("attempt", "crashes")) <= {(0, 0)}
        line.open()
        assert [handle.result(timeout=60) for handle in handles] == [2] * 5
        assert fleet.stop() == [0]
    assert_tables_consistent()
    [message] = said(log, "WARNING")
    assert "atomic activities cannot begin" in message

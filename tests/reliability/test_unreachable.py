"""A server that nobody reaches, or that only those reach who are connected already."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def read_only_database() -> Iterator[None]:
    """Let all later connections read only, as those to a standby, and cut those that are open."""
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        try:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            yield
        finally:
            cursor.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only a setting of the whole server does it")
def test_worker_that_meets_a_standby_waits_for_the_primary(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with worker_processes(1, lease=30, log=log) as fleet:
        handles = mixed.start_many([(f"w{number}", 6) for number in range(5)])
        eventually(Effect.objects.exists, 60)
        with read_only_database():
            eventually(lambda: re.search("the database (has failed|fails).*read-only transaction", log.read_text()), 60)
            handles += mixed.start_many([(f"later {number}", 2) for number in range(5)])
        assert [handle.result(timeout=60) for handle in handles] == [15] * 5 + [3] * 5
        assert fleet.stop() == [0]
    assert_tables_consistent()
    assert_outages_are_told(log, "terminating connection|closed the connection|read-only transaction", most=2)


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

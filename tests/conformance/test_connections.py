"""Connections cut under a working worker: nothing is lost, nothing is recorded twice, and the worker goes on."""

from __future__ import annotations

import importlib
from contextlib import ExitStack

import pytest
from django.db import connection

from django_workflows.models import HistoryEvent, OpenInstance
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from tests.reliability.workflows import mixed
from tests.testapp.models import Effect

from .waiting import eventually


def cut_connections() -> int:
    """End every other session on this database, whatever it is doing; return how many there were."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return int(cursor.fetchone()[0])
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()")
        sessions = [row[0] for row in cursor.fetchall()]
        for session in sessions:
            try:
                cursor.execute(f"KILL {session:d}")
            except Exception as error:
                assert "Unknown thread id" in str(error)
        return len(sessions)


@pytest.mark.parametrize("workers", [1, 2])
def test_cut_connections_lose_nothing_and_double_nothing(
    workers: int, cache_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("there is no connection to cut")
    with ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(running_worker(threads=4, sticky_cache_size=cache_size))
        handles = mixed.start_many([(f"instance {number}", 6) for number in range(20)])
        for done in range(1, 9):
            # Spread over the run: after every so many recorded results.
            eventually(lambda done=done: HistoryEvent.objects.filter(type="ActivityCompleted").count() >= done * 10, 60)  # type: ignore[misc]
            assert cut_connections() > 0
        assert [handle.result(timeout=60) for handle in handles] == [15] * 20
    assert not OpenInstance.objects.exists()
    keys = list(Effect.objects.values_list("key", flat=True))
    assert len(keys) == len(set(keys)) == 20 * 3
    assert HistoryEvent.objects.filter(type="ActivityCompleted").count() == 20 * 6
    assert not [record.message for record in caplog.records if record.exc_info], "an error that nobody expected"


def test_worker_that_loses_its_connection_while_idle_goes_on(cache_size: int) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("there is no connection to cut")
    with running_worker(sticky_cache_size=cache_size) as worker:
        mixed.start("before", 2).result(timeout=20)
        first = worker.id
        cut_connections()
        mixed.start("after", 2).result(timeout=20)
        assert worker.id == first, "a lost connection is no lost lease"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_turns_are_read_committed_whatever_the_application_is(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("its transactions come one after the other")
    configured, question = level, "SELECT @@transaction_isolation"
    if connection.vendor == "postgresql":
        configured, question = level.replace(" ", "_").upper(), "SHOW transaction_isolation"
        configured = importlib.import_module("psycopg").IsolationLevel[configured]
    elif connection.mysql_is_mariadb and connection.mysql_version < (11, 1):
        question = "SELECT @@tx_isolation"
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "isolation_level", configured)
    connection.close()
    try:
        database = Database()
        for prepared, expected in ((False, level), (True, "read committed")):
            if prepared:
                database.prepare_worker_session(30)
            with database.atomic(), database.cursor() as cursor:
                cursor.execute(question)
                assert cursor.fetchone()[0].lower().replace("-", " ") == expected
    finally:
        connection.close()


def test_a_worker_leaves_no_option_of_its_own_to_others_of_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL has pools")
    pytest.importorskip("psycopg_pool")
    connection.close()
    with monkeypatch.context() as pooled:
        pooled.setitem(connection.settings_dict["OPTIONS"], "pool", {"min_size": 1, "max_size": 1})
        try:
            database = Database()
            database.prepare_worker_session(30)
            assert lock_timeout() == "1s"
            database.discard_connection()
            assert lock_timeout() == "0"
        finally:
            connection.close()
            connection.close_pool()


def test_turns_are_stored_where_the_server_binds_the_parameters(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL's driver has the option")
    connection.close()
    with monkeypatch.context() as bound:
        bound.setitem(connection.settings_dict["OPTIONS"], "server_side_binding", True)
        try:
            with running_worker(sticky_cache_size=cache_size):
                assert mixed.start("bound", 4).result(timeout=60) == 8
        finally:
            connection.close()


def lock_timeout() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        return str(cursor.fetchone()[0])

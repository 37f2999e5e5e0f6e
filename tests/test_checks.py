"""System checks: each set-up that fails, or loses work, only later is named, and a sound one is passed in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from django_workflows import checks
from django_workflows.testing import running_worker
from tests.settings import database

ROOT = Path(__file__).resolve().parent.parent
DRIVERS = {"postgresql": "psycopg", "mariadb": "MySQLdb", "sqlite": "sqlite3"}


def connection_to(vendor: str, **changes: Any) -> BaseDatabaseWrapper:
    """Return a connection of a vendor, not opened, with some of its settings changed; OPTIONS are merged."""
    pytest.importorskip(DRIVERS[vendor])
    config = database(vendor)
    config |= changes | {"OPTIONS": config["OPTIONS"] | changes.get("OPTIONS", {})}
    handler = ConnectionHandler({"default": config})
    return handler["default"]


def ids(messages: Any) -> list[str | None]:
    return [message.id for message in messages]


def configured() -> list[CheckMessage]:
    """Run the checks that open no connection."""
    return checks.check_configuration()


# As a whole


@pytest.mark.django_db
def test_the_settings_of_the_tests_pass_all_checks_on_every_database() -> None:
    found = run_checks(tags=[checks.TAG], databases=["default"])
    assert [message for message in found if not message.is_silenced()] == []


def test_the_example_project_passes_all_checks(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "EXAMPLE_DATA_DIR": str(tmp_path),
    }
    command = [sys.executable, "manage.py", "check", "--database", "default"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "no issues" in done.stdout


def test_plain_check_opens_no_connection() -> None:
    # Without a database mark, pytest-django makes every connection fail.
    call_command("check")


# Starting workers


@pytest.mark.django_db(transaction=True)
def test_the_command_refuses_to_start_on_an_error(settings: Any) -> None:
    settings.USE_TZ = False
    with pytest.raises(SystemCheckError, match=r"workflows\.E004"):
        call_command("runworkflowworker", burst=True, skip_checks=False)


@pytest.mark.django_db(transaction=True)
def test_the_command_starts_in_spite_of_a_warning(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings.DJANGO_WORKFLOWS = {"RETENTION": {"completed": 1}}
    call_command("runworkflowworker", burst=True, skip_checks=False, verbosity=0)
    assert "workflows.W007" in capsys.readouterr().err


@pytest.mark.django_db(transaction=True)
def test_a_worker_in_the_tests_refuses_to_start_on_an_error(settings: Any) -> None:
    settings.USE_TZ = False
    with pytest.raises(ImproperlyConfigured, match=r"workflows\.E004"), running_worker():
        pass


@pytest.mark.django_db(transaction=True)
def test_a_silenced_error_refuses_nothing(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"LEASE": timedelta(seconds=30), "TYPO": 1}
    with pytest.raises(ImproperlyConfigured, match=r"workflows\.E001"):
        checks.refuse_errors()
    settings.SILENCED_SYSTEM_CHECKS = ["workflows.E001"]
    checks.refuse_errors()


# The settings


def test_every_wrong_setting_is_named_at_once(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"THREDS": 2, "LEASE": "soon", "CRASH_LIMIT": 3}
    first, second = configured()
    assert (first.id, first.msg) == ("workflows.E001", 'DJANGO_WORKFLOWS["THREDS"] is not a setting, found 2.')
    assert first.hint == "Did you mean THREADS?"
    assert second.id == "workflows.E001"
    assert 'DJANGO_WORKFLOWS["LEASE"] must be a timedelta or a number of seconds' in second.msg


def test_an_alias_that_does_not_exist_is_named(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"DATABASE": "workflows"}
    [message] = configured()
    assert message.id == "workflows.E002"
    assert "'workflows'" in message.msg
    assert message.hint == "Choose one of default."


def test_an_alias_to_listen_on_that_does_not_exist_is_named(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"LISTEN_DATABASE": "direct"}
    [message] = configured()
    assert message.id == "workflows.E002"
    assert message.msg.startswith('DJANGO_WORKFLOWS["LISTEN_DATABASE"]')

    settings.DJANGO_WORKFLOWS = {"LISTEN_DATABASE": None}
    assert configured() == []


@pytest.mark.parametrize(
    ("alias", "found"),
    [
        ("default", "'default': django.core.cache.backends.locmem.LocMemCache"),
        ("djangos", "'djangos': django.core.cache.backends.redis.RedisCache"),
        ("misspelt", "'misspelt': django_redis.Cache"),
        ("missing", "'missing': no such alias"),
    ],
)
def test_a_cache_that_cannot_carry_wakeups_is_refused(settings: Any, alias: str, found: str) -> None:
    settings.CACHES = settings.CACHES | {
        "djangos": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1"},
        "misspelt": {"BACKEND": "django_redis.Cache"},
    }
    settings.DJANGO_WORKFLOWS = {"WAKEUPS_CACHE": alias}
    [message] = configured()
    assert message.id == "workflows.E007"
    assert found in message.msg


def test_a_cache_of_django_redis_is_passed(settings: Any) -> None:
    pytest.importorskip("django_redis")
    settings.DJANGO_WORKFLOWS = {"WAKEUPS_CACHE": "redis"}
    assert configured() == []


def test_without_django_redis_no_cache_can_carry_wakeups(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "django_redis.cache", None)
    settings.DJANGO_WORKFLOWS = {"WAKEUPS_CACHE": "redis"}
    assert ids(configured()) == ["workflows.E007"]


def test_naive_times_are_refused(settings: Any) -> None:
    settings.USE_TZ = False
    assert ids(configured()) == ["workflows.E004"]


def test_a_lease_shorter_than_a_step_may_take_is_warned_of(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"LEASE": 2.9}
    [message] = configured()
    assert message.id == "workflows.W006"
    assert message.hint == "Make LEASE 3 s or longer, or STEP_TIME_LIMIT shorter."

    for sound in ({"LEASE": 3}, {"LEASE": 1, "STEP_TIME_LIMIT": 0.5}):
        settings.DJANGO_WORKFLOWS = sound
        assert configured() == []


def test_a_retention_that_outruns_the_callers_of_result_is_warned_of(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"RETENTION": {"completed": 59, "failed": 60}}
    [message] = configured()
    assert message.id == "workflows.W007"
    assert '"completed"' in message.msg


# The database, without asking it


def test_an_unsupported_database_is_refused() -> None:
    dummy = ConnectionHandler({})["default"]
    [message] = checks.check_vendor(dummy)
    assert message.id == "workflows.E003"
    assert "runs on SQLite, PostgreSQL, MySQL and MariaDB" in message.msg


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql", "mariadb"])
def test_supported_databases_with_the_options_of_the_documentation_are_passed(vendor: str) -> None:
    sound = connection_to(vendor)
    assert [message for check in checks._OF_CONNECTION for message in check(sound)] == []


@pytest.mark.parametrize("mode", [None, "DEFERRED", "deferred"])
def test_deferred_transactions_are_refused_on_sqlite(mode: str | None) -> None:
    [message] = checks.check_sqlite_transactions(connection_to("sqlite", OPTIONS={"transaction_mode": mode}))
    assert message.id == "workflows.E005"
    assert message.hint == 'Set "transaction_mode": "IMMEDIATE".'


@pytest.mark.parametrize("changes", [{"OPTIONS": {"transaction_mode": "exclusive"}}, {"NAME": ":memory:"}])
def test_exclusive_transactions_and_databases_in_memory_are_passed(changes: dict[str, Any]) -> None:
    changes.setdefault("OPTIONS", {"transaction_mode": None})
    assert list(checks.check_sqlite_transactions(connection_to("sqlite", **changes))) == []


@pytest.mark.parametrize(
    ("level", "found"),
    [("repeatable read", "'repeatable read'"), ("serializable", "'serializable'"), (None, "leaves it to the server")],
)
def test_isolation_that_locks_gaps_is_warned_of_on_mysql(level: str | None, found: str) -> None:
    [message] = checks.check_isolation(connection_to("mariadb", OPTIONS={"isolation_level": level}))
    assert message.id == "workflows.W003"
    assert found in message.msg


def test_djangos_own_isolation_is_passed_on_mysql() -> None:
    sound = connection_to("mariadb")
    del sound.settings_dict["OPTIONS"]["isolation_level"]
    assert list(checks.check_isolation(sound)) == []


@pytest.mark.parametrize(("pool", "size"), [(True, 4), ({"min_size": 2}, 2), ({"min_size": 2, "max_size": 8}, 8)])
def test_a_pool_smaller_than_the_threads_is_warned_of(pool: Any, size: int) -> None:
    [message] = checks.check_pool(connection_to("postgresql", OPTIONS={"pool": pool}))
    assert message.id == "workflows.W004"
    assert f"of {size} connections" in message.msg
    assert message.hint is not None and '{"max_size": 9}' in message.hint


def test_a_pool_for_all_threads_is_passed(settings: Any) -> None:
    assert list(checks.check_pool(connection_to("postgresql", OPTIONS={"pool": {"max_size": 9}}))) == []
    settings.DJANGO_WORKFLOWS = {"THREADS": 3}
    assert list(checks.check_pool(connection_to("postgresql", OPTIONS={"pool": True}))) == []


def test_psycopg2_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    postgresql = connection_to("postgresql")
    monkeypatch.setattr("django.db.backends.postgresql.psycopg_any.is_psycopg3", False)
    assert ids(checks.check_driver(postgresql)) == ["workflows.W005"]


@pytest.mark.parametrize("version", [(3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 46, 1), (3, 50, 6), (3, 51, 2)])
def test_versions_of_sqlite_with_the_wal_reset_bug_are_known(version: tuple[int, ...]) -> None:
    assert checks.has_wal_reset_bug(version)


@pytest.mark.parametrize("version", [(3, 6, 23), (3, 44, 6), (3, 50, 7), (3, 51, 3), (3, 53, 0)])
def test_versions_of_sqlite_without_it_are_known(version: tuple[int, ...]) -> None:
    assert not checks.has_wal_reset_bug(version)


def test_the_wal_reset_bug_is_told_before_a_deployment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite = connection_to("sqlite")
    monkeypatch.setattr(sqlite, "get_database_version", lambda: (3, 40, 1))
    assert ids(checks.check_sqlite_version(sqlite)) == ["workflows.W002"]
    assert list(checks.check_sqlite_version(connection_to("sqlite", NAME=":memory:"))) == []
    deployment = run_checks(tags=[checks.TAG], databases=[], include_deployment_checks=True)
    everyday = run_checks(tags=[checks.TAG], databases=[])
    affected = connection.vendor == "sqlite" and checks.has_wal_reset_bug(connection.get_database_version())
    assert ("workflows.W002" in ids(deployment)) is affected
    assert "workflows.W002" not in ids(everyday)


# The database, asked


@pytest.mark.parametrize(("pragma", "expected"), [("DELETE", ["workflows.W001"]), ("WAL", [])])
def test_sqlite_without_wal_is_warned_of(
    tmp_path: Path, django_db_blocker: Any, pragma: str, expected: list[str]
) -> None:
    options = {"init_command": f"PRAGMA journal_mode={pragma};"}
    sqlite = connection_to("sqlite", NAME=str(tmp_path / "database"), OPTIONS=options)
    with django_db_blocker.unblock():
        try:
            assert ids(checks.check_journal(sqlite)) == expected
        finally:
            sqlite.close()


@pytest.mark.parametrize("version", [(10, 5, 28), (10, 4, 12)])
def test_servers_without_the_needed_statements_are_known(version: tuple[int, ...]) -> None:
    assert not checks.has_needed_statements(version, is_mariadb=True)
    assert not checks.has_needed_statements((8, 0, 3), is_mariadb=False)


def test_servers_with_the_needed_statements_are_known() -> None:
    assert checks.has_needed_statements((10, 6, 0), is_mariadb=True)
    assert checks.has_needed_statements((8, 0, 11), is_mariadb=False)


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "mysql", reason="about MariaDB's version")
def test_an_old_mariadb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(checks.check_mysql_version(connection)) == []
    monkeypatch.setattr(connection, "get_database_version", lambda: (10, 5, 28))
    [message] = checks.check_mysql_version(connection)
    assert message.id == "workflows.E006"
    assert message.hint == "Use MariaDB 10.6 or newer."

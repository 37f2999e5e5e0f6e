"""Which database the suite runs on, and the line that reports the outcome."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.test import TransactionTestCase

from .emptying import empty_tables


def _remove_sqlite_log(name: str) -> None:
    # SQLite would take the write-ahead log of a deleted database for that of its successor.
    for suffix in ("-wal", "-shm"):
        Path(name + suffix).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> Iterator[None]:
    """Tell child processes the name of the test database; pytest-django asks for this before it creates it."""
    database = settings.DATABASES["default"]
    name = database["TEST"]["NAME"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE", os.environ.get("DATABASE", "sqlite"))
        patch.setenv("DATABASE_NAME", name)
        if database["ENGINE"].endswith("sqlite3"):
            _remove_sqlite_log(name)
        yield
        if database["ENGINE"].endswith("sqlite3"):
            _remove_sqlite_log(name)


@pytest.fixture(scope="session", autouse=True)
def quick_emptying() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_tables)
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, which need no database: several processes end at about the same time then."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/simulation/", "tests/engine/")))


def pytest_report_header() -> str:
    return f"database: {os.environ.get('DATABASE', 'sqlite')}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the counts as the very last line: run_all.py reads them there."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of pytest-xdist
        return
    failed = len(reporter.stats.get("failed", [])) + len(reporter.stats.get("error", []))
    print(f"{len(reporter.stats.get('passed', []))} passed, {failed} failed")

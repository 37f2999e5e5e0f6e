"""Databases of the benchmarks' own, made and dropped with each vendor's maintenance connection."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.settings import database as configuration
from tests.settings import sqlite_path

VENDORS = ("postgresql", "sqlite", "mariadb")


def environment(vendor: str, name: str) -> dict[str, str]:
    """Return the environment of a process that works in a database."""
    settings = {"DATABASE": vendor, "DATABASE_NAME": name, "DJANGO_SETTINGS_MODULE": "benchmarks.settings"}
    return {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}


def postgresql_url(name: str) -> str:
    config = configuration("postgresql")
    return f"postgresql://{config['USER']}@{config['HOST']}:{config['PORT']}/{name}"


def create(vendor: str, name: str) -> None:
    """Make an empty database, in the place of one that has the name."""
    if vendor == "sqlite":
        _remove_files(sqlite_path(name))
        return
    with _maintenance(vendor) as execute:
        _drop(vendor, execute, name)
        execute(f"CREATE DATABASE {name}" + (" CHARACTER SET utf8mb4" if vendor == "mariadb" else ""))


def drop_all(vendor: str, prefix: str) -> None:
    """Drop every database whose name begins with the prefix."""
    if vendor == "sqlite":
        for path in Path(tempfile.gettempdir()).glob(f"{prefix}*.sqlite3"):
            _remove_files(str(path))
        return
    names = "SELECT datname FROM pg_database" if vendor == "postgresql" else "SHOW DATABASES"
    with _maintenance(vendor) as execute:
        for (name,) in execute(names):
            if name.startswith(prefix):
                _drop(vendor, execute, name)


def server_version(vendor: str) -> str:
    """Return the version of the server, and how it promises that commits last."""
    if vendor == "sqlite":
        import sqlite3

        return f"{sqlite3.sqlite_version} (WAL, synchronous=NORMAL)"
    flag = "innodb_flush_log_at_trx_commit" if vendor == "mariadb" else "synchronous_commit"
    with _maintenance(vendor) as execute:
        (version,) = next(iter(execute("SELECT version()" if vendor == "mariadb" else "SHOW server_version")))
        value = next(iter(execute(f"SHOW VARIABLES LIKE '{flag}'" if vendor == "mariadb" else f"SHOW {flag}")))[-1]
    return f"{version.split('-')[0].split(' ')[0]} ({flag}={value})"


def _drop(vendor: str, execute: Callable[[str], Any], name: str) -> None:
    execute(f"DROP DATABASE IF EXISTS {name}" + (" WITH (FORCE)" if vendor == "postgresql" else ""))


def _remove_files(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)


@contextmanager
def _maintenance(vendor: str) -> Iterator[Callable[[str], Any]]:
    """Yield a function that executes a statement and returns its rows."""
    config = configuration(vendor)
    link: Any
    if vendor == "postgresql":
        import psycopg

        link = psycopg.connect(postgresql_url("postgres"), autocommit=True, connect_timeout=10)
    else:
        import MySQLdb

        account = {"host": config["HOST"], "user": config["USER"], "password": config["PASSWORD"]}
        link = MySQLdb.connect(**account, connect_timeout=10)
    cursor = link.cursor()

    def execute(statement: str) -> Any:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else ()

    try:
        yield execute
    finally:
        link.close()


def why_unreachable(vendor: str) -> str:
    """Return the reason why a database cannot be used, or nothing."""
    try:
        server_version(vendor)
    except Exception as error:  # each driver has errors of its own, and may be missing
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def reachable() -> list[str]:
    return [vendor for vendor in VENDORS if not why_unreachable(vendor)]

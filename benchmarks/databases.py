"""A fresh database for each vendor, made with the vendor's own maintenance connection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connections


def make_fresh() -> None:
    """Drop and create the benchmark database of the configured vendor, and migrate it."""
    config: dict[str, Any] = settings.DATABASES["default"]
    name = config["NAME"]
    match config["ENGINE"].rpartition(".")[2]:
        case "sqlite3":
            for suffix in ("", "-wal", "-shm"):
                Path(name + suffix).unlink(missing_ok=True)
        case "postgresql":
            import psycopg

            with psycopg.connect(host=config["HOST"], user=config["USER"], dbname="postgres", autocommit=True) as link:
                link.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
                link.execute(f'CREATE DATABASE "{name}"')
        case "mysql":
            import MySQLdb

            link = MySQLdb.connect(host=config["HOST"], user=config["USER"], password=config["PASSWORD"])
            with link.cursor() as cursor:
                cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
                cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
            link.close()
    connections.close_all()
    call_command("migrate", verbosity=0)


def environment(vendor: str) -> dict[str, str]:
    return {**os.environ, "DATABASE": vendor, "DJANGO_SETTINGS_MODULE": "benchmarks.settings"}

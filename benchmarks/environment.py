"""The machine and the versions that a figure belongs to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import databases


def describe(vendor: str) -> dict[str, str]:
    """Return what a record says of its surroundings."""
    return {
        "machine": _machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "django": version("django"),
        "driver": _driver(vendor),
        "database": databases.server_version(vendor),
    }


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {_processor()}, {memory:.0f} GiB"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _driver(vendor: str) -> str:
    package = {"postgresql": "psycopg", "mariadb": "mysqlclient"}.get(vendor)
    try:
        return f"{package} {version(package)}" if package else "sqlite3"
    except PackageNotFoundError:
        return f"{package}, version unknown"

"""Run the suite once per database that answers and say at the end what ran: `python -m tests.run_all [pytest options]`.

DATABASES names the databases to try. One that does not answer is reported, and an error where CI is set.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALL = "sqlite postgresql mariadb"
# Without our apps, so that a mistake in them fails tests rather than looks like a missing database.
PROBE = """
from django.conf import settings
from tests.settings import DATABASES
settings.configure(DATABASES=DATABASES)
from django.db import connection
with connection._nodb_cursor() as cursor:
    cursor.execute("SELECT 1")
"""
COUNTS = re.compile(r"(\d+) passed, (\d+) failed")


def environment(database: str) -> dict[str, str]:
    return {**os.environ, "DATABASE": database, "PYTHONUNBUFFERED": "1"}


def why_unreachable(database: str) -> str:
    """Return the reason why the tests cannot use this database, or nothing."""
    if database == "sqlite":
        return ""
    command = [sys.executable, "-W", "ignore", "-c", PROBE]
    try:
        probe = subprocess.run(
            command, cwd=ROOT, env=environment(database), capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return "no answer within 60 seconds"
    if probe.returncode == 0:
        return ""
    errors = re.findall(r"^\w[\w.]*(?:Error|ImproperlyConfigured|Exception)\b.*", probe.stderr, re.MULTILINE)
    return errors[-1] if errors else f"exit code {probe.returncode}"


# Four at a time, each with a database of its own: many tests mostly wait.
PARALLEL = ("-n", "4", "--dist", "loadfile", "--no-loadscope-reorder")
# The simulation brings its own.
WITHOUT_DATABASE = ("tests/engine", "tests/values", "tests/typing", "tests/worker", "tests/simulation")


def run(database: str, arguments: list[str]) -> tuple[int, int]:
    """Run the suite on one database and return how many tests passed and failed."""
    print(f"\n===== {database} =====", flush=True)
    command = [sys.executable, "-m", "pytest", *arguments]
    counts = None
    with subprocess.Popen(command, cwd=ROOT, env=environment(database), stdout=subprocess.PIPE, text=True) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            print(line, end="", flush=True)
            counts = COUNTS.fullmatch(line.strip()) or counts
    passed, failed = (int(counts[1]), int(counts[2])) if counts else (0, 0)
    if pytest.returncode and not failed:
        print(f"pytest on {database} ended with exit code {pytest.returncode}: counted as one failure")
        failed = 1
    return passed, failed


def main() -> int:
    databases = os.environ.get("DATABASES", ALL).split()
    if unknown := set(databases) - set(ALL.split()):
        print(f"DATABASES must name some of: {ALL}; found {' '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    reasons = {database: why_unreachable(database) for database in databases}
    reachable = [database for database in databases if not reasons[database]]
    results = {}
    for database in reachable:
        # What needs no database is run with the first one only.
        rest = [] if database == reachable[0] else [f"--ignore={folder}" for folder in WITHOUT_DATABASE]
        results[database] = run(database, [*PARALLEL, *rest, *sys.argv[1:]])
    print()
    for database in databases:
        if reasons[database]:
            print(f"{database}: not reachable ({reasons[database]})")
        else:
            print("{}: {} passed, {} failed".format(database, *results[database]))
    passed = sum(counts[0] for counts in results.values())
    failed = sum(counts[1] for counts in results.values())
    missing = any(reasons.values())
    if missing and os.environ.get("CI"):
        print("CI is set, so a database that is not reachable is an error")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or (missing and os.environ.get("CI")) else 0


if __name__ == "__main__":
    sys.exit(main())

"""A sequential activity where commits take longer: PostgreSQL waits before each flush, as a slower disk would.

`commit_delay` with `commit_siblings = 0` makes the server sleep in every flush of its log
(https://www.postgresql.org/docs/current/runtime-config-wal.html), for commits of ours and of the one to compare with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connection

from benchmarks import workflows
from benchmarks.case import Case
from benchmarks.instrumented import instrumented_worker
from benchmarks.sizes import Sizes
from benchmarks.systems.ours import make_database

from .latency import time_chain

NAME = "disks"


def cases(sizes: Sizes) -> Iterator[Case]:
    yield Case(NAME, "postgresql", "postgresql", 600, sizes.only("flushes", "chained", "threads"))


def measure(case: Case) -> dict[str, Any]:
    make_database()
    found = {}
    for delay in case.parameters["flushes"]:
        _delay_flushes(delay)
        with instrumented_worker(threads=case.parameters["threads"]):
            workflows.timed.start(1).result(timeout=60)
            found[str(delay)] = time_chain(case.parameters["chained"])
    return found


def _delay_flushes(milliseconds: int) -> None:
    name = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET commit_siblings = 0")
        cursor.execute(f"ALTER DATABASE {name} SET commit_delay = {milliseconds * 1000}")
    connection.close()  # sessions take it up when they begin

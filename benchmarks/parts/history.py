"""What long histories cost: to append to, and to replay."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import databases, workflows
from benchmarks.case import Case
from benchmarks.sizes import Sizes
from benchmarks.systems import wait_until
from benchmarks.systems.ours import make_database, worker_process
from django_workflows.models import HistoryEvent, OpenInstance
from django_workflows.store import claims
from django_workflows.store.database import Database
from django_workflows.worker import stepping
from django_workflows.worker.guards import StepWatch

NAME = "history"
_REPLAYS = 5


def cases(sizes: Sizes) -> Iterator[Case]:
    for vendor in databases.VENDORS:
        yield Case(NAME, vendor, vendor, 900, sizes.only("events", "threads"))


def measure(case: Case) -> dict[str, Any]:
    return {str(events): _measure(events, case.parameters["threads"]) for events in case.parameters["events"]}


def _measure(events: int, threads: int) -> dict[str, float]:
    make_database()
    activities = (events - 1) // 2  # each is scheduled and completed
    length = 1 + 2 * activities
    with worker_process(threads):
        started = time.perf_counter()
        workflows.waiting.start(activities)
        wait_until(lambda: OpenInstance.objects.filter(history_length__gte=length).exists())
        seconds = time.perf_counter() - started
    wait_until(lambda: not OpenInstance.objects.filter(owner_id__isnull=False).exists())
    times = list(HistoryEvent.objects.order_by("sequence").values_list("time", flat=True))
    tenth = max(2, length // 10)
    loads, replays = _replay(length)
    return {
        "append": seconds / length,
        "append_first": (times[tenth - 1] - times[0]).total_seconds() / tenth,
        "append_last": (times[-1] - times[-tenth]).total_seconds() / tenth,
        "load": loads,
        "replay": replays,
    }


def _replay(length: int) -> tuple[float, float]:
    """Return the median seconds to read the one open instance's history, and to replay it."""
    watch = StepWatch(60.0)
    watch.start()
    loads, replays = [], []
    keys = list(OpenInstance.objects.values_list("open_key", flat=True))
    for _ in range(_REPLAYS):
        started = time.perf_counter()
        (loaded,) = claims.load_instances(Database(), keys)
        read = time.perf_counter()
        held = stepping.build(loaded, watch)
        replays.append(time.perf_counter() - read)
        loads.append(read - started)
        assert held.machine is not None and held.machine.history_length == length
        held.machine.dispose()
    watch.stop()
    return statistics.median(loads), statistics.median(replays)

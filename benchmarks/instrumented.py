"""A worker process that tells what it did: `with instrumented_worker() as report: ...; report()`.

The worker is the product's own; it is watched from outside, by wrapping what it calls. A report covers the time since
the one before.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Report = dict[str, Any]
_WORD = re.compile(r"\w+")
_TABLE = re.compile(r"\bdjango_workflows_(\w+)")


@contextmanager
def instrumented_worker(
    *, threads: int = 8, wakeups: str = "", sample: bool = False, sticky_cache_size: int | None = None
) -> Iterator[Callable[[], Report]]:
    """Run a worker process, ready to work; yields the function that reports and begins anew."""
    options = {"threads": threads, "sample": sample, "sticky": sticky_cache_size}
    command = [sys.executable, "-m", "benchmarks.instrumented", json.dumps(options)]
    environment = {**os.environ, "BENCHMARK_WAKEUPS": wakeups}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    sent, received = process.stdin, process.stdout

    def report() -> Report:
        sent.write("report\n")
        sent.flush()
        answer: Report = json.loads(received.readline())
        return answer

    try:
        report()  # answered when it is ready
        yield report
    finally:
        sent.close()
        process.wait(timeout=60)
        received.close()


class Meter:
    """Counts and times what the worker's connections do, and its polls."""

    def __init__(self) -> None:
        self.statements: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        self.commits = [0, 0.0]
        self.polls: list[float] = []

    def install(self) -> None:
        from django.db.backends.base.base import BaseDatabaseWrapper
        from django.db.backends.utils import CursorWrapper

        from django_workflows.worker.finder import Finder

        # Inside of all execute wrappers, where statements that travel together are one.
        for name in ("_execute", "_executemany"):
            setattr(CursorWrapper, name, self._timing(getattr(CursorWrapper, name)))
        commit, poll = BaseDatabaseWrapper._commit, Finder.poll  # type: ignore[attr-defined]

        def counted_commit(wrapper: BaseDatabaseWrapper) -> None:
            with self._timed(self.commits):
                commit(wrapper)

        def timed_poll(finder: Finder, room: int) -> Any:
            started = time.perf_counter()
            try:
                return poll(finder, room)
            finally:
                self.polls.append(time.perf_counter() - started)

        BaseDatabaseWrapper._commit = counted_commit  # type: ignore[attr-defined]
        Finder.poll = timed_poll  # type: ignore[assignment,method-assign]

    def _timing(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def timed(cursor: Any, sql: Any, *args: Any) -> Any:
            with self._timed(self.statements[_label(str(sql))]):
                return execute(cursor, sql, *args)

        return timed

    @contextmanager
    def _timed(self, entry: list[Any]) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            entry[0] += 1
            entry[1] += time.perf_counter() - started

    def take(self) -> Report:
        taken = {"statements": dict(self.statements), "commits": self.commits[:], "polls": self.polls[:]}
        self.statements.clear()
        self.commits[:] = [0, 0.0]
        self.polls.clear()
        return taken


def _label(sql: str) -> str:
    """Return the verb and the tables of a statement."""
    verbs = [verb.group().upper() for part in sql.split("; ") if (verb := _WORD.search(part))]
    tables = list(dict.fromkeys(_TABLE.findall(sql)))
    shown = "+".join(dict.fromkeys(verbs))
    locking = " (lock)" if shown == "SELECT" and " FOR " in sql else ""
    return f"{shown} {', '.join(tables)}{locking}".strip()


class Sampler:
    """Looks at the stack of one thread every few milliseconds: which part of a turn, in which function."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread
        self.samples: Counter[tuple[str, str]] = Counter()

    def start(self) -> None:
        sys.setswitchinterval(0.0005)  # or samples gather where the thread gives up the interpreter by itself
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(0.002)
            frame = sys._current_frames().get(self._thread.ident or 0)
            if frame is not None:
                self.samples[_place(frame)] += 1

    def take(self) -> list[tuple[str, str, int]]:
        taken = [(phase, function, count) for (phase, function), count in self.samples.items()]
        self.samples.clear()
        return taken


_DRIVERS = ("/django/db/", "/psycopg/", "/MySQLdb/")


def _place(frame: Any) -> tuple[str, str]:
    """Return the part of the turn and our innermost function, with a mark where it waits for the database."""
    stack = []
    while frame is not None:
        stack.append(frame.f_code)
        frame = frame.f_back
    ours = [code for code in stack if "/django_workflows/" in code.co_filename]
    names = [code.co_qualname for code in reversed(ours)]
    phase = names[names.index("TurnLoop.turn") + 1 :][:1] if "TurnLoop.turn" in names else names[-1:]
    mark = " [database]" if any(driver in stack[0].co_filename for driver in _DRIVERS) else ""
    leaf = f"{Path(ours[0].co_filename).stem}: {ours[0].co_qualname}" if ours else stack[0].co_qualname
    return (phase or ["TurnLoop.turn"])[0], leaf + mark


def _usage(worker_thread: threading.Thread) -> Report:
    """Return the CPU seconds of the process and of its turns, and its memory now in bytes, or at most."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    turns = 0.0
    if hasattr(time, "pthread_getcpuclockid") and worker_thread.ident is not None:
        turns = time.clock_gettime(time.pthread_getcpuclockid(worker_thread.ident))
    try:
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        memory = used.ru_maxrss
    return {"cpu": used.ru_utime + used.ru_stime, "cpu_turns": turns, "memory": memory}


def main() -> None:
    import django

    django.setup()
    from django_workflows.worker.garbage import collected_rarely
    from django_workflows.worker.listener import DataVersionListener
    from django_workflows.worker.worker import Worker, WorkerOptions

    options = json.loads(sys.argv[1])
    if os.environ.get("BENCHMARK_WAKEUPS") == "polling":
        # What the settings cannot switch off: SQLite's data version, which nobody has to announce.
        DataVersionListener.heard = lambda self: False  # type: ignore[method-assign]
    meter = Meter()
    meter.install()
    worker = Worker(WorkerOptions(threads=options["threads"], sticky_cache_size=options["sticky"]))

    def run() -> None:
        with collected_rarely():
            worker.run()

    turns = threading.Thread(target=run, name="turns")
    turns.start()
    worker.ready.wait(timeout=60)
    sampler = Sampler(turns)
    if options["sample"]:
        sampler.start()
    before = {"cpu": 0.0, "cpu_turns": 0.0}
    for _ in sys.stdin:
        now = _usage(turns)
        spent = {name: now[name] - before[name] for name in before}
        before = now
        print(json.dumps({**spent, "memory": now["memory"], **meter.take(), "samples": sampler.take()}), flush=True)
    worker.stop()
    turns.join(timeout=30)


if __name__ == "__main__":
    main()

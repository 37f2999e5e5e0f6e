"""A worker in the current process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from django_workflows.checks import refuse_errors
from django_workflows.exceptions import WorkflowsError
from django_workflows.worker.worker import Worker, WorkerOptions


@contextmanager
def running_worker(
    queues: Sequence[str] = (),
    *,
    threads: int = 8,
    workflows: bool = True,
    activities: bool = True,
    sticky_cache_size: int | None = None,
    lease: timedelta | None = None,
    grace: timedelta = timedelta(seconds=10),
) -> Iterator[Worker]:
    """Run a worker in threads of this process for the length of the block.

    It sees committed rows only: use a test class that commits (`TransactionTestCase`,
    `pytest.mark.django_db(transaction=True)`), and on SQLite a file database: one in memory belongs to its thread.
    Raises ImproperlyConfigured where `runworkflowworker` would not start: see the system checks.

    Example:
        with running_worker():
            assert greet.start("world").result(timeout=10) == "hello world"
    """
    refuse_errors()
    options = WorkerOptions(
        queues=queues, threads=threads, workflows=workflows, activities=activities,
        sticky_cache_size=sticky_cache_size, lease=lease, grace=grace,
    )  # fmt: skip
    worker = Worker(options)
    thread = threading.Thread(target=worker.run, name="workflow-worker", daemon=True)
    thread.start()
    try:
        if not worker.ready.wait(timeout=30):
            raise WorkflowsError("expected the worker to register within 30 s; is the database migrated and reachable?")
        yield worker
    finally:
        worker.stop()
        thread.join(timeout=grace.total_seconds() + 5)
        if thread.is_alive():
            worker.stop()
            thread.join(timeout=5)

"""`manage.py runworkflowworker`: run a worker until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connections
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV, file_changed, run_with_reloader
from django.utils.connection import ConnectionDoesNotExist

from django_workflows.conf import read_settings
from django_workflows.management.arguments import count_up_to, seconds, text_of
from django_workflows.worker.garbage import collected_rarely
from django_workflows.worker.processes import run_processes
from django_workflows.worker.worker import Worker, WorkerOptions

_RELOAD_GRACE = 5.0  # seconds for running activities when code changes
_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG, 3: logging.DEBUG}


class Command(BaseCommand):
    help = "Runs workflows and activities until it is stopped: SIGTERM drains, a second one exits at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        queue, count = text_of(100), count_up_to(1000)
        add("--queue", action="append", type=queue, dest="queues", metavar="NAME", help="serve this queue; repeatable")
        add("--threads", type=count, metavar="N", help="sync activities at a time, by default the THREADS setting")
        add("--processes", type=count, metavar="N", default=1, help="worker processes; one that dies is replaced")
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument("--workflow-only", action="store_true", help="leave activities to other workers")
        kind.add_argument("--activity-only", action="store_true", help="leave workflow code to other workers")
        add("--burst", action="store_true", help="exit when there is nothing left to do now")
        add("--grace", type=seconds, metavar="SECONDS", help="how long a drain waits for running activities")
        reload = parser.add_mutually_exclusive_group()
        reload.add_argument(
            "--reload", action="store_true", default=None, help="restart when code changes; on by default with DEBUG"
        )
        reload.add_argument("--no-reload", action="store_false", dest="reload")

    def get_check_kwargs(self, options: dict[str, Any]) -> Any:
        alias = read_settings().settings.database
        return {**super().get_check_kwargs(options), "databases": [alias] if _answers(alias) else []}

    def handle(self, *args: Any, **options: Any) -> None:
        connections.close_all()  # what the checks opened belongs to this thread, which may only supervise
        _log_to_terminal(_LEVELS[options["verbosity"]])
        reload = options["reload"]
        if reload is None:
            reload = settings.DEBUG and not options["burst"] and options["processes"] == 1
        if options["processes"] > 1:
            if reload:
                raise CommandError("--reload restarts one process: expected --processes 1 with it")
            sys.exit(run_processes(options["processes"], sys.argv))
        worker = Worker(_worker_options(options))
        with collected_rarely():
            if reload:
                _run_reloading(worker)
            else:
                with _stopped_by_signals(worker):
                    worker.run()


def _answers(alias: str) -> bool:
    """Tell whether the database can be checked now; the worker itself waits for one that cannot be reached yet."""
    try:
        connections[alias].ensure_connection()
    except (ConnectionDoesNotExist, DatabaseError, InterfaceError):
        return False
    return True


def _worker_options(options: dict[str, Any]) -> WorkerOptions:
    return WorkerOptions(
        queues=options["queues"] or (),
        threads=options["threads"],
        workflows=not options["activity_only"],
        activities=not options["workflow_only"],
        burst=options["burst"],
        grace=options["grace"],
    )


def _run_reloading(worker: Worker) -> None:
    """Run under Django's autoreloader, which runs the worker in a thread and replaces the process on a change.

    What the old process holds is given back first, or the new one would wait for its lease to run out.
    """

    def drain(**signal: Any) -> None:
        worker.stop()
        if worker.ready.is_set():
            worker.stopped.wait(_RELOAD_GRACE)

    file_changed.connect(drain, dispatch_uid="django_workflows")
    try:
        run_with_reloader(worker.run)
    finally:
        # Ctrl-C ends both processes; only the one that runs the worker has something to give back.
        if os.environ.get(DJANGO_AUTORELOAD_ENV) == "true":
            drain()


@contextmanager
def _stopped_by_signals(worker: Worker) -> Iterator[None]:
    """Drain on the first SIGTERM or SIGINT, exit on the second; restores the handlers, for `call_command` in tests."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _stop_handler(worker)
    previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _stop_handler(worker: Worker) -> Callable[[int, FrameType | None], None]:
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            # At once: what this process holds is taken over by others when its lease has run out.
            os._exit(1)
        worker.stop()

    return handle


def _log_to_terminal(level: int) -> None:
    """Print the package's log lines unless the project has configured logging for them."""
    logger = logging.getLogger("django_workflows")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(level)

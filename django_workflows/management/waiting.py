"""Waiting for an instance: for its end, and for its answers."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from django_workflows import WorkflowHandle
from django_workflows.inspection.queries import load_workers
from django_workflows.models import WorkflowInstance

from .arguments import duration
from .command import Answer, WorkflowCommand
from .instances import outcome
from .text import one_line


class WaitingCommand(WorkflowCommand):
    """A command that may wait for an instance."""

    def add_timeout_argument(self, parser: CommandParser, when: str = "") -> None:
        parser.add_argument(
            "--timeout", type=duration, metavar="DURATION",
            help=f"{when}give up after so long, such as 30s or 5m; the instance goes on",
        )  # fmt: skip

    def note_missing_worker(self, row: WorkflowInstance) -> None:
        """Say why the wait may be long."""
        if row.closed_at is None and row.queue not in load_workers(row._state.db, set(), timezone.now()).queues:
            self.note(f"No live worker serves the queue {one_line(row.queue)} now; `runworkflowworker` runs one.")

    def wait_for(self, handle: WorkflowHandle[Any], options: dict[str, Any]) -> Answer:
        """Wait until the instance is closed and answer with its outcome."""
        self.note_missing_worker(handle.describe())
        timeout = options["timeout"]
        return outcome(handle.wait_closed(None if timeout is None else timeout.total_seconds()))

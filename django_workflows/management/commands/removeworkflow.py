"""`manage.py removeworkflow`: remove a closed instance."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_workflows.management.command import Answer, WorkflowCommand
from django_workflows.management.instances import name_of, summary


class Command(WorkflowCommand):
    help = "Removes a closed instance with its history and all executions that it continued as."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        self.add_instance_arguments(parser)
        self.add_noinput_argument(parser)

    def run(self, options: dict[str, Any]) -> Answer:
        handle = self.handle_of(options)
        row = handle.describe()
        if row.closed_at is not None:
            what = "with its history" if handle.execution_id else "with the history of all its executions"
            self.confirm(f"This removes {name_of(row)} ({row.status}) {what}.", options)
        handle.remove()
        return Answer(summary(row), f"Removed {name_of(row)}")

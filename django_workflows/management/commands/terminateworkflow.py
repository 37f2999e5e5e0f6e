"""`manage.py terminateworkflow`: close an instance at once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_workflows.management.command import Answer, WorkflowCommand
from django_workflows.management.instances import name_of, summary


class Command(WorkflowCommand):
    help = "Closes an open instance at once: none of its code runs, nothing is cleaned up."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        self.add_instance_arguments(parser)
        self.add_reason_argument(parser)
        self.add_noinput_argument(parser)

    def run(self, options: dict[str, Any]) -> Answer:
        handle = self.handle_of(options)
        row = handle.describe()
        if row.closed_at is None:
            self.confirm(f"This ends {name_of(row)} at once: none of its code runs, nothing is cleaned up.", options)
        handle.terminate(options["reason"])
        return Answer(summary(handle.describe()), f"Terminated {name_of(row)}")

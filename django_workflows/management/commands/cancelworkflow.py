"""`manage.py cancelworkflow`: ask an instance to cancel."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_workflows.management.command import Answer, WorkflowCommand
from django_workflows.management.text import shell_word


class Command(WorkflowCommand):
    help = "Asks an open instance to cancel: its code sees CancelledError and may clean up. Does not wait for it."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        self.add_instance_arguments(parser)
        self.add_reason_argument(parser)

    def run(self, options: dict[str, Any]) -> Answer:
        handle = self.handle_of(options)
        handle.cancel(options["reason"])
        document = {"instance_id": handle.instance_id, "reason": options["reason"]}
        return Answer(document, f"Asked {shell_word(handle.instance_id)} to cancel")

"""`manage.py showworkflow`: everything about one instance."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_workflows.management import details
from django_workflows.management.command import Answer, WorkflowCommand
from django_workflows.management.details_text import describe


class Command(WorkflowCommand):
    help = "Shows an instance: status, input, result or failure, and what it has at work and waits for."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        self.add_instance_arguments(parser)
        parser.add_argument("--history", action="store_true", help="list the events of its history too")
        parser.add_argument(
            "--payloads", action="store_true", help="show payloads whole, also those of activities, messages and events"
        )

    def run(self, options: dict[str, Any]) -> Answer:
        instance = self.handle_of(options).describe()
        found = details.load(instance, with_history=options["history"], with_payloads=options["payloads"])
        return Answer(details.document(found), describe(found, self.paint_status))

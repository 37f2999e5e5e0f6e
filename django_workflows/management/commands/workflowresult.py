"""`manage.py workflowresult`: wait for an instance to close and print its result."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_workflows.management.command import Answer
from django_workflows.management.waiting import WaitingCommand


class Command(WaitingCommand):
    help = "Waits until an instance is closed and prints its result; fails where it has none."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        self.add_instance_arguments(parser)
        self.add_timeout_argument(parser)

    def run(self, options: dict[str, Any]) -> Answer:
        return self.wait_for(self.handle_of(options), options)

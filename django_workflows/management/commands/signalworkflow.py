"""`manage.py signalworkflow`: send a signal to an instance."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_workflows.management.arguments import Json, json_value, text_of
from django_workflows.management.command import Answer, WorkflowCommand
from django_workflows.management.text import one_line, shell_word


class Command(WorkflowCommand):
    help = "Sends a signal to an open instance."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        self.add_instance_arguments(parser)
        parser.add_argument("signal", type=text_of(200), metavar="NAME", help="the name in Signal(name)")
        parser.add_argument(
            "value", type=json_value, nargs="?", default=Json(None), metavar="JSON", help="the value; null without"
        )

    def run(self, options: dict[str, Any]) -> Answer:
        handle, signal, value = self.handle_of(options), options["signal"], options["value"].value
        handle.signal(signal, value)
        document = {"instance_id": handle.instance_id, "signal": signal, "value": value}
        return Answer(document, f"Sent the signal {one_line(signal)!r} to {shell_word(handle.instance_id)}")

"""`manage.py updateworkflow`: ask an instance of a workflow class for an update, and wait for the answer."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_workflows import UpdateFailed, UpdateHandle, UpdateNotAnswered, UpdateRejected, registry
from django_workflows.failures import Failure
from django_workflows.management.arguments import text_of
from django_workflows.management.calling import add_call_arguments, typed_arguments
from django_workflows.management.command import Answer, ExitCode
from django_workflows.management.instances import as_text, stored, value_of
from django_workflows.management.text import block, one_line, shell_word
from django_workflows.management.waiting import WaitingCommand
from django_workflows.models import WorkflowUpdate


class Command(WaitingCommand):
    help = "Asks an open instance of a workflow class for an update and prints the answer; fails where there is none."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        self.add_instance_arguments(parser)
        parser.add_argument("update", type=text_of(200), metavar="NAME", help="the name of the update")
        add_call_arguments(parser)
        self.add_timeout_argument(parser)

    def run(self, options: dict[str, Any]) -> Answer:
        handle, timeout = self.handle_of(options), options["timeout"]
        instance = handle.describe()
        handler = registry.get_workflow(instance.name).find_handler("update", options["update"])
        args, kwargs = typed_arguments(handler.signature, options)
        asked = handle.start_update(options["update"], *args, **kwargs)
        self.note_missing_worker(instance)
        update: UpdateHandle[Any] = handle.get_update(asked.update_id)  # whose result is plain JSON
        try:
            update.result(None if timeout is None else timeout.total_seconds())
        except (UpdateRejected, UpdateFailed, UpdateNotAnswered) as error:
            return _unanswered(update, error)
        row = update.describe()
        return Answer(_document(update, row), "\n".join(as_text(value_of(row.result))))


def _document(update: UpdateHandle[Any], row: WorkflowUpdate) -> dict[str, Any]:
    return {
        "instance_id": update.instance_id,
        "update": row.name,
        "update_id": row.update_id,
        "status": row.status,
        "result": value_of(row.result),
        "failure": stored(row.failure),
    }


def _unanswered(update: UpdateHandle[Any], error: Exception) -> Answer:
    row = update.describe()
    reason = Failure.decode(row.failure).format().rstrip() if row.failure else str(error)
    lines = [f"the update {one_line(row.name)!r} of {shell_word(update.instance_id)}: {row.status}", *block(reason)]
    return Answer(_document(update, row), "", CommandError("\n".join(lines), returncode=ExitCode.NOT_COMPLETED))

"""`manage.py queryworkflow`: ask an instance of a workflow class, and print the answer."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from msgspec import Raw

from django_workflows import payloads, registry
from django_workflows.exceptions import WorkflowsError
from django_workflows.failures import Failure
from django_workflows.management.arguments import text_of
from django_workflows.management.calling import add_call_arguments, typed_arguments
from django_workflows.management.command import Answer, ExitCode, WorkflowCommand
from django_workflows.management.instances import as_text
from django_workflows.management.text import block, one_line, shell_word


class Command(WorkflowCommand):
    help = "Asks an instance of a workflow class, open or closed, and prints the answer; no worker is needed."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        self.add_instance_arguments(parser)
        parser.add_argument("query", type=text_of(200), metavar="NAME", help="the name of the query")
        add_call_arguments(parser)

    def run(self, options: dict[str, Any]) -> Answer:
        handle, query = self.handle_of(options), options["query"]
        handler = registry.get_workflow(handle.describe().name).find_handler("query", query)
        args, kwargs = typed_arguments(handler.signature, options)
        try:
            found = handle.query(query, *args, **kwargs)
        except (WorkflowsError, DatabaseError):
            raise
        except Exception as error:
            title = f"the query {one_line(query)!r} of {shell_word(handle.instance_id)}: raised"
            lines = [title, *block(Failure.of(error).format().rstrip())]
            raise CommandError("\n".join(lines), returncode=ExitCode.NOT_COMPLETED) from error
        answer = Raw(payloads.encode_plain(found, what=f"the answer of {query!r}"))
        document = {"instance_id": handle.instance_id, "query": query, "answer": answer}
        return Answer(document, "\n".join(as_text(answer)))

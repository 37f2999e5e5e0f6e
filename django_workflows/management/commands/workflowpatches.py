"""`manage.py workflowpatches`: list the patches of open instances, and which of them may lose their old path."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_workflows import registry
from django_workflows.inspection.patches import PatchUse, uses_of_patches
from django_workflows.management.arguments import text_of
from django_workflows.management.command import Answer, WorkflowCommand
from django_workflows.management.text import table


class Command(WorkflowCommand):
    help = "Lists the patches that open instances have, and how many instances of the same workflow lack them."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--name", type=text_of(200), metavar="NAME", help="of this workflow only")

    def run(self, options: dict[str, Any]) -> Answer:
        uses = uses_of_patches()
        if options["name"]:
            definition = registry.workflows.get(options["name"])
            wanted = options["name"] if definition is None else definition.name
            uses = [use for use in uses if use.workflow == wanted]
        return Answer({"patches": [_document(use) for use in uses]}, _text(uses))


def _document(use: PatchUse) -> dict[str, Any]:
    return {
        "workflow": use.workflow, "patch": use.patch, "with": use.having, "without": use.lacking,
        "old_path_needed": use.old_path_needed,
    }  # fmt: skip


def _text(uses: list[PatchUse]) -> str:
    if not uses:
        return "No open instance has a patch"
    cells = [
        [use.workflow, use.patch, use.having, use.lacking, "needed" if use.old_path_needed else "may be removed"]
        for use in uses
    ]
    return "\n".join(table(["WORKFLOW", "PATCH", "OPEN WITH", "OPEN WITHOUT", "OLD PATH"], cells))

"""`manage.py listworkflows`: list instances, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import QuerySet
from django.utils import timezone

from django_workflows import registry
from django_workflows.inspection.presentation import format_duration
from django_workflows.inspection.queries import first_rows, with_history_length, with_id_prefix
from django_workflows.keys import key_of
from django_workflows.management.arguments import STATUSES, count_up_to, duration, instance_id, one_of, text_of
from django_workflows.management.command import Answer, WorkflowCommand
from django_workflows.management.instances import summary, unknown_workflow
from django_workflows.management.text import shell_word, table, time_of
from django_workflows.models import WorkflowInstance
from django_workflows.store.database import Database


class Command(WorkflowCommand):
    help = "Lists instances, newest first: each execution of an id is one line."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add(
            "--status", type=one_of(STATUSES), action="append", dest="statuses", metavar="STATUS",
            help=f"only these, repeatable: {', '.join(STATUSES)}",
        )  # fmt: skip
        add("--name", type=text_of(200), metavar="NAME", help="of this workflow, also under its older names")
        add("--queue", type=text_of(100), metavar="NAME", help="in this queue")
        add("--instance-id", type=instance_id, metavar="ID", help="the executions of exactly this id")
        add("--instance-id-prefix", type=instance_id, metavar="TEXT", help="whose id begins with this text")
        add("--older-than", type=duration, metavar="DURATION", help="started longer ago than this, such as 2h")
        add("--newer-than", type=duration, metavar="DURATION", help="started within this last time, such as 2h")
        add("--limit", type=count_up_to(100_000), default=50, metavar="N", help="at most so many, default %(default)s")

    def run(self, options: dict[str, Any]) -> Answer:
        rows, more = first_rows(_selected(options), options["limit"])
        if not rows and options["name"] and registry.workflows.get(options["name"]) is None:
            self.note(unknown_workflow(options["name"]))
        instances = [{**summary(row), "history_length": row.events} for row in rows]
        return Answer({"instances": instances, "more": more}, self._text(rows, more, options["verbosity"]))

    def _text(self, rows: Sequence[Any], more: bool, verbosity: int) -> str:
        if not rows:
            return "No instances"
        headers = ["STATUS", "STARTED", "DURATION", "EVENTS", "WORKFLOW", "INSTANCE ID"]
        cells = [_cells(row) for row in rows]
        if verbosity >= 2:
            headers.insert(0, "EXECUTION ID")
            cells = [[row.execution_id, *line] for row, line in zip(rows, cells, strict=True)]
        lines = table(headers, cells, {headers.index("STATUS"): self.paint_status})
        if more:
            lines.append(f"There are more: these are the newest {len(rows):,}, --limit shows others")
        return "\n".join(lines)


def _selected(options: dict[str, Any]) -> QuerySet[Any]:
    rows: QuerySet[Any] = WorkflowInstance.objects.using(Database().alias)
    rows = rows.defer("input", "result", "failure", "attributes")
    if options["statuses"]:
        rows = rows.filter(status__in=options["statuses"])
    if options["name"]:
        definition = registry.workflows.get(options["name"])
        names = {options["name"]} if definition is None else {definition.name, *definition.aliases}
        rows = rows.filter(name__in=names)
    if options["queue"]:
        rows = rows.filter(queue=options["queue"])
    if options["instance_id"]:
        rows = rows.filter(instance_key=key_of(options["instance_id"]))
    if options["instance_id_prefix"]:
        rows = with_id_prefix(rows, options["instance_id_prefix"])
    return with_history_length(_by_age(rows, options["older_than"], options["newer_than"])).order_by("-id")


def _by_age(rows: QuerySet[Any], older_than: timedelta | None, newer_than: timedelta | None) -> QuerySet[Any]:
    now = Database().now()
    if older_than is not None:
        rows = rows.filter(created_at__lt=now - older_than)
    return rows if newer_than is None else rows.filter(created_at__gte=now - newer_than)


def _cells(row: Any) -> list[object]:
    took = (row.closed_at or timezone.now()) - row.created_at
    return [
        row.status,
        time_of(row.created_at),
        format_duration(took),
        row.events,
        row.name,
        shell_word(row.instance_id),
    ]

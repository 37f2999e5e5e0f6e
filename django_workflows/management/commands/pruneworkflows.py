"""`manage.py pruneworkflows`: remove instances that closed long ago."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from django_workflows.management.arguments import CLOSED_STATUSES, count_up_to, duration, one_of
from django_workflows.management.command import Answer, WorkflowCommand
from django_workflows.store import retention
from django_workflows.store.database import Database


class Command(WorkflowCommand):
    help = "Removes the instances that closed longer ago than a duration, with everything that is theirs."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add(
            "--older-than", type=duration, required=True, metavar="DURATION",
            help="such as 30d, 12h or 90m; counted from the closing",
        )  # fmt: skip
        add(
            "--status", type=one_of(CLOSED_STATUSES), action="append", dest="statuses", metavar="STATUS",
            help=f"only these, repeatable: {', '.join(CLOSED_STATUSES)}; all of them without",
        )  # fmt: skip
        add(
            "--batch-size", type=count_up_to(5000), default=retention.BATCH, metavar="N",
            help="instances in one transaction at most, fewer where histories are long; default %(default)s",
        )  # fmt: skip
        add("--dry-run", action="store_true", help="only count what would be removed")
        self.add_noinput_argument(parser)

    def run(self, options: dict[str, Any]) -> Answer:
        database = Database()
        before = database.now() - options["older_than"]
        statuses = list(dict.fromkeys(options["statuses"] or CLOSED_STATUSES))
        if options["dry_run"] or options["interactive"]:
            counts = {status: retention.count_prunable(database, status, before) for status in statuses}
            if options["dry_run"] or not any(counts.values()):
                return _answer(counts, before, "Would remove" if options["dry_run"] else "Removed", options["dry_run"])
            self.confirm(f"This removes {_in_words(counts)}, closed before {before:%Y-%m-%d %H:%M:%S} UTC.", options)
        removed = {status: self._prune(database, status, before, options) for status in statuses}
        return _answer(removed, before, "Removed", dry_run=False)

    def _prune(self, database: Database, status: str, before: datetime, options: dict[str, Any]) -> int:
        removed = 0
        for count in retention.prune(database, status, before, batch_size=options["batch_size"]):
            removed += count
            if options["verbosity"] >= 2:
                self.note(f"{status}: {removed:,} removed")
        return removed


def _answer(counts: Mapping[str, int], before: datetime, verb: str, dry_run: bool) -> Answer:
    document = {"closed_before": before, "dry_run": dry_run, "total": sum(counts.values()), "by_status": counts}
    return Answer(document, f"{verb} {_in_words(counts)}")


def _in_words(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    parts = [f"{count:,} {status}" for status, count in counts.items() if count]
    return f"{total:,} {'execution' if total == 1 else 'executions'}" + (f" ({', '.join(parts)})" if parts else "")

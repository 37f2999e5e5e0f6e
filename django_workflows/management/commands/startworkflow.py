"""`manage.py startworkflow`: start an instance, and wait for it if wanted."""

from __future__ import annotations

from typing import Any, get_args

from django.core.management.base import CommandError, CommandParser

from django_workflows import Workflow
from django_workflows.authoring.start_options import ConflictPolicy
from django_workflows.exceptions import InstanceAlreadyExists
from django_workflows.management.arguments import instance_id, one_of, text_of
from django_workflows.management.calling import add_call_arguments, typed_arguments
from django_workflows.management.command import Answer, ExitCode
from django_workflows.management.instances import find_workflow, name_of, summary
from django_workflows.management.waiting import WaitingCommand


class Command(WaitingCommand):
    help = "Starts an instance of a workflow."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add("workflow", type=text_of(200), metavar="NAME", help="the registered name, such as shop.fulfil_order")
        add_call_arguments(parser)
        add("--instance-id", type=instance_id, metavar="ID", help="a random one without")
        add("--queue", type=text_of(100), metavar="NAME", help="the workflow's own queue without")
        add(
            "--on-conflict", type=one_of(get_args(ConflictPolicy)), default="raise", metavar="POLICY",
            help="when the id is open: raise (the default), use_existing or terminate_existing",
        )  # fmt: skip
        add("--wait", action="store_true", help="wait for the end and print the result, as `workflowresult` does")
        self.add_timeout_argument(parser, "with --wait: ")

    def run(self, options: dict[str, Any]) -> Answer:
        if options["timeout"] is not None and not options["wait"]:
            raise CommandError("--timeout is for --wait: expected both or neither", returncode=ExitCode.USAGE)
        definition = find_workflow(options["workflow"])
        args, kwargs = typed_arguments(definition.signature, options)
        using = {name: options[name] for name in ("instance_id", "queue") if options[name] is not None}
        workflow: Workflow[..., Any] = Workflow(definition).using(on_conflict=options["on_conflict"], **using)
        try:
            handle = workflow.start(*args, **kwargs)
        except InstanceAlreadyExists as error:
            raise CommandError(
                f"an instance with the id {options['instance_id']!r} is open: `showworkflow` shows it, "
                "--on-conflict says what to do about it",
                returncode=ExitCode.WRONG_STATE,
            ) from error
        row = handle.describe()
        verb = "Started or found" if options["on_conflict"] == "use_existing" else "Started"
        started = f"{verb} {name_of(row)}"
        if options["wait"]:
            self.note(started)
            return self.wait_for(handle, options)
        return Answer(summary(row), started)

"""`manage.py startworkflow`: start an instance, and wait for it if wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from django.core.management.base import CommandError, CommandParser

from django_workflows import Workflow
from django_workflows.authoring.start_options import ConflictPolicy
from django_workflows.exceptions import InstanceAlreadyExists
from django_workflows.management.arguments import instance_id, json_object, json_value, one_of, text_of
from django_workflows.management.command import Answer, ExitCode
from django_workflows.management.instances import find_workflow, name_of, summary
from django_workflows.management.waiting import WaitingCommand
from django_workflows.registry import WorkflowDefinition


class Command(WaitingCommand):
    help = "Starts an instance of a workflow."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add("workflow", type=text_of(200), metavar="NAME", help="the registered name, such as shop.fulfil_order")
        add("arguments", type=json_value, nargs="*", metavar="JSON", help="arguments by position, each as JSON")
        add("--kwargs", type=json_object, metavar="JSON", help="arguments by keyword, as a JSON object")
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
        args, kwargs = _typed(definition, [given.value for given in options["arguments"]], options["kwargs"] or {})
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
        if options["wait"]:
            return self.wait_for(handle, options)
        row = handle.describe()
        verb = "Started or found" if options["on_conflict"] == "use_existing" else "Started"
        return Answer(summary(row), f"{verb} {name_of(row)}")


def _typed(
    definition: WorkflowDefinition, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return JSON arguments decoded to the annotations: a wrong type is an error here, not a blocked instance later."""
    try:
        stored = definition.signature.encode_arguments(args, kwargs)
    except TypeError as error:
        raise CommandError(str(error), returncode=ExitCode.USAGE) from error
    return definition.signature.decode_arguments(stored)

"""Calls with arguments in JSON, of workflows and of their handlers."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_workflows.payloads import CallSignature

from .arguments import json_object, json_value
from .command import ExitCode


def add_call_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "arguments", type=json_value, nargs="*", metavar="JSON", help="arguments by position, each as JSON"
    )
    parser.add_argument("--kwargs", type=json_object, metavar="JSON", help="arguments by keyword, as a JSON object")


def typed_arguments(signature: CallSignature, options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments decoded to the annotations; raises CommandError or PayloadError for those that do not fit.

    So a wrong type is an error here, and not a blocked instance later.
    """
    args, kwargs = [given.value for given in options["arguments"]], options["kwargs"] or {}
    try:
        stored = signature.encode_arguments(args, kwargs)
    except TypeError as error:
        raise CommandError(str(error), returncode=ExitCode.USAGE) from error
    return signature.decode_arguments(stored)

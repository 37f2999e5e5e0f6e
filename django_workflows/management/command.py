"""What the commands over the client have in common: formats, errors and exit codes, confirmation."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentError, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError, CommandParser, no_translations
from django.db import DatabaseError

from django_workflows import WorkflowHandle, get_handle
from django_workflows.conf import get_settings
from django_workflows.exceptions import (
    InstanceAlreadyExists,
    InstanceNotFinished,
    InstanceNotFound,
    InstanceNotRunning,
    PayloadError,
    UnknownHandlerError,
    WorkflowsError,
)
from django_workflows.inspection.presentation import indented

from .arguments import execution_id, instance_id, reason


class ExitCode(IntEnum):
    """How a command ended; docs/commands.md tells people the same."""

    FAILED = 1  # anything else: a refused question, the database
    USAGE = 2  # as argparse has it: the command line is wrong
    NOT_FOUND = 3
    WRONG_STATE = 4  # open where it must be closed, or the other way round
    NOT_COMPLETED = 5  # the instance ended otherwise than by returning, or what was asked of it did
    TIMED_OUT = 6
    INTERRUPTED = 130  # as a shell has it for Ctrl-C


_EXIT_CODES: dict[type[Exception], ExitCode] = {
    InstanceNotFound: ExitCode.NOT_FOUND,
    InstanceAlreadyExists: ExitCode.WRONG_STATE,
    InstanceNotFinished: ExitCode.WRONG_STATE,
    InstanceNotRunning: ExitCode.WRONG_STATE,
    PayloadError: ExitCode.USAGE,
    UnknownHandlerError: ExitCode.USAGE,
    TimeoutError: ExitCode.TIMED_OUT,
}
_ADVICE: dict[type[Exception], str] = {
    InstanceNotFound: "; `listworkflows` shows which there are",
    InstanceNotRunning: "; `showworkflow` shows how it ended",
}


@dataclass(frozen=True)
class Answer:
    """What a command found or did: the same for programs and for people, and an error that follows it."""

    document: dict[str, Any]
    text: str
    error: CommandError | None = None


class WorkflowCommand(BaseCommand):
    """A command over the client; a subclass has `run`, which returns an Answer.

    Standard output is the answer and nothing else. Errors, questions and notes go to standard error.
    """

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        self._parser = super().create_parser(prog_name, subcommand, **kwargs)
        parse_in_order = self._parser.parse_args

        def parse_args(args: Any = None, namespace: Any = None) -> Any:
            # Otherwise options may not stand between required and optional arguments; "--" works in order only.
            parse: Any = parse_in_order if "--" in (args or ()) else self._parser.parse_intermixed_args
            return parse(args, namespace)

        self._parser.parse_args = parse_args  # type: ignore[method-assign]
        return self._parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--format", choices=["text", "json"], default="text", help="for people, or one JSON document; default text"
        )

    def add_instance_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("instance_id", type=instance_id, metavar="INSTANCE_ID")
        parser.add_argument(
            "--execution-id", type=execution_id, metavar="ID", help="this execution of the id instead of the newest"
        )

    def add_reason_argument(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", type=reason, default="", metavar="TEXT", help="kept in the history")

    def add_noinput_argument(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--noinput", "--no-input", action="store_false", dest="interactive", help="do not ask for confirmation"
        )

    def run(self, options: dict[str, Any]) -> Answer:
        raise NotImplementedError("a subclass of WorkflowCommand must have run()")

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        self._has_colours = options["force_color"] or self.stdout.isatty()
        with _errors_as_command_errors():
            answer = self.run(self._read(options))
        text = as_json(answer.document) if options["format"] == "json" else answer.text
        if text:
            self._print(_encodable(text, getattr(self.stdout, "encoding", None)))
        if answer.error is not None:
            raise answer.error

    def handle_of(self, options: dict[str, Any]) -> WorkflowHandle[Any]:
        return get_handle(options["instance_id"], options["execution_id"])

    def confirm(self, question: str, options: dict[str, Any]) -> None:
        """Ask before something that cannot be undone; raises CommandError unless the answer is yes."""
        if not options["interactive"]:
            return
        if sys.stdin is None or not sys.stdin.isatty():
            raise CommandError(
                f"{question} There is no terminal where this could be confirmed: pass --noinput to go on without"
            )
        self.note(question)
        self.note("Type 'yes' to continue, or 'no' to cancel: ", ending="")
        self.stderr.flush()
        if sys.stdin.readline().strip().lower() != "yes":
            raise CommandError("Cancelled: nothing was changed")

    def note(self, text: str, ending: str = "\n") -> None:
        """Write for people beside the answer."""
        self.stderr.write(_encodable(text, getattr(self.stderr, "encoding", None)), _plain, ending=ending)

    def paint_status(self, status: str) -> str:
        """Colour the name of a status where the answer goes to a terminal that shows colours."""
        word = status.strip()
        if not self._has_colours:
            return status
        if word == "completed":
            return self.style.SUCCESS(status)
        if word in ("failed", "timed_out"):
            return self.style.ERROR(status)
        return self.style.WARNING(status) if word in ("blocked", "cancelled", "terminated") else status

    def _print(self, text: str) -> None:
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except BrokenPipeError:
            # `| head` has read enough; what is still buffered may not fail once more when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())

    def _read(self, options: dict[str, Any]) -> dict[str, Any]:
        """Give options that call_command() has handed on as they are to the types that the parser would have used."""
        read = dict(options)
        for action in self._parser._actions:
            value = read.get(action.dest)
            if value is None or not callable(action.type):
                continue
            try:
                read[action.dest] = [action.type(v) for v in value] if isinstance(value, list) else action.type(value)
            except ArgumentTypeError as error:
                raise CommandError(str(ArgumentError(action, str(error))), returncode=ExitCode.USAGE) from None
        return read


def as_json(document: dict[str, Any]) -> str:
    """Return the document as JSON in ASCII, which reads the same whatever the terminal's encoding is."""
    text = msgspec.json.encode(document).decode()
    return re.sub("[^\0-~]", lambda found: _json_escape(found[0]), indented(text) or text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _encodable(text: str, encoding: str | None) -> str:
    return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def _plain(text: str) -> str:
    return text


@contextmanager
def _errors_as_command_errors() -> Iterator[None]:
    try:
        yield
    except (WorkflowsError, TimeoutError) as error:
        kind = next((kind for kind in _EXIT_CODES if isinstance(error, kind)), Exception)
        code = _EXIT_CODES.get(kind, ExitCode.FAILED)
        raise CommandError(f"{error}{_ADVICE.get(kind, '')}", returncode=code) from error
    except DatabaseError as error:
        alias = get_settings().database
        raise CommandError(
            f"the database {alias!r} refused: {str(error).strip()}; is it there, and are its migrations applied?"
        ) from error
    except KeyboardInterrupt:
        raise CommandError("Interrupted", returncode=ExitCode.INTERRUPTED) from None

"""Calling commands in this process."""

from __future__ import annotations

import io
import json
import sys
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError


class Output(NamedTuple):
    out: str
    err: str
    error: CommandError | None

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def attempt(command: str, *arguments: str, **options: Any) -> Output:
    """Call a command with the words of a command line; keywords are those of callers of call_command()."""
    out, err, error = io.StringIO(), io.StringIO(), None
    try:
        call_command(command, *arguments, stdout=out, stderr=err, **options)
    except CommandError as raised:
        error = raised
    return Output(out.getvalue(), err.getvalue(), error)


def run(command: str, *arguments: str, **options: Any) -> Output:
    """Call a command that must succeed."""
    output = attempt(command, *arguments, **options)
    assert output.error is None, output.error
    return output


def document(command: str, *arguments: str, **options: Any) -> Any:
    """Return the JSON that a command answers with."""
    return run(command, *arguments, "--format", "json", **options).document


def refusal(command: str, *arguments: str, **options: Any) -> CommandError:
    """Return the error with which a command ends that answers nothing."""
    output = attempt(command, *arguments, **options)
    assert output.error is not None, output.out
    assert output.out == ""
    return output.error


class Terminal(io.StringIO):
    """A standard input that is a terminal where somebody types."""

    def isatty(self) -> bool:
        return True


def typing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(text))

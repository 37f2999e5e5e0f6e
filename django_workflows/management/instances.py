"""Instances as commands answer with them: documents for programs, and how they ended."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import msgspec
from django.core.management.base import CommandError
from msgspec import Raw

from django_workflows import payloads, registry
from django_workflows.exceptions import PayloadError
from django_workflows.failures import Failure
from django_workflows.inspection.presentation import indented
from django_workflows.models import InstanceStatus, WorkflowInstance

from .command import Answer, ExitCode
from .text import block, one_line, shell_word, shortened


def summary(row: WorkflowInstance) -> dict[str, Any]:
    """Return what every document about an instance begins with."""
    return {
        "instance_id": row.instance_id,
        "execution_id": row.execution_id,
        "workflow": row.name,
        "status": row.status,
        "queue": row.queue,
        "version": row.version,
        "created_at": row.created_at,
        "closed_at": row.closed_at,
    }


def stored(text: str | None) -> Raw | str | None:
    """Return stored JSON for a document as it stands; text that is no JSON as text."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Raw)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text


def value_of(payload: str | Raw | None) -> Any:
    """Return the plain data of a stored payload, read with the project's codec; what cannot be read as text."""
    if payload is None:
        return None
    try:
        return Raw(payloads.encode_plain(payloads.decode(payload, Any, what="a payload"), what="a payload"))
    except PayloadError:
        return payload if isinstance(payload, str) else bytes(payload).decode()


def call_of(text: str) -> Any:
    """Return the arguments of a stored call, by position and by keyword; what cannot be read as text."""
    try:
        args, kwargs = msgspec.json.decode(text, type=tuple[list[Raw], dict[str, Raw]])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text
    return {
        "args": [value_of(value) for value in args],
        "kwargs": {name: value_of(value) for name, value in kwargs.items()},
    }


def as_text(value: Any, limit: int | None = None) -> list[str]:
    """Return the lines of a value as JSON: the beginning in one line, or all of it indented."""
    text = msgspec.json.encode(value).decode()
    return block(indented(text) or text if limit is None else shortened(text, limit), indent="")


def reason_of(row: WorkflowInstance) -> str:
    """Return why an instance failed or stands still, as Python prints a traceback; of a terminated one the reason."""
    try:
        failure = Failure.decode(row.failure or "")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return row.failure or ""
    return failure.message if row.status == InstanceStatus.TERMINATED else failure.format().rstrip()


def name_of(row: WorkflowInstance) -> str:
    """Return how people call an instance: its workflow and its id."""
    return f"{one_line(row.name)} {shell_word(row.instance_id)}"


def outcome(row: WorkflowInstance) -> Answer:
    """Answer with the result of a closed instance, or with an error that says how else it ended."""
    document = {**summary(row), "result": value_of(row.result), "failure": stored(row.failure)}
    if row.status == InstanceStatus.COMPLETED:
        return Answer(document, "\n".join(as_text(document["result"])))
    lines = [f"{name_of(row)}: {row.status}", *(block(reason) if (reason := reason_of(row)) else ())]
    return Answer(document, "", CommandError("\n".join(lines), returncode=ExitCode.NOT_COMPLETED))


def find_workflow(name: str) -> registry.WorkflowDefinition:
    """Return the definition of a registered name; raises CommandError that names close ones."""
    definition = registry.workflows.get(name)
    if definition is None:
        raise CommandError(unknown_workflow(name), returncode=ExitCode.USAGE)
    return definition


def unknown_workflow(name: str) -> str:
    """Say that no workflow has this name, and which ones there are."""
    names = sorted(definition.name for definition in registry.workflows)
    if not names:
        advice = "; there are none: they are found in the `workflows` modules of INSTALLED_APPS"
    else:
        # Whoever forgets the app's label or misspells it has the function's name right, or nearly so.
        close = get_close_matches(_function_of(name)[:200], map(_function_of, names), n=3)
        meant = [known for known in names if _function_of(known) in close][:3]
        advice = f"; did you mean {' or '.join(meant)}?" if meant else ""
        advice = advice or f"; there are {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
    return f"no workflow is registered under the name {name!r}{advice}"


def _function_of(name: str) -> str:
    return name.rpartition(".")[2]

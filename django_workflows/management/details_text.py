"""Everything about one instance as text: facts first, then one section for each thing that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter
from itertools import zip_longest
from typing import Any

from django_workflows import registry
from django_workflows.inspection.presentation import (
    display_activity,
    display_attributes,
    display_events,
    event_subject,
    format_duration,
    relative_time,
    summarize_failure,
)
from django_workflows.models import InstanceStatus
from django_workflows.registry import Definition

from .details import Details
from .instances import as_text, call_of, name_of, reason_of, value_of
from .text import Paint, block, facts, one_line, shell_word, shortened, table, time_of

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_REASONS = {InstanceStatus.BLOCKED: "Blocked by", InstanceStatus.TERMINATED: "Reason"}
_SHORT = 300  # characters of a payload without --payloads


def describe(details: Details, paint_status: Paint) -> str:
    """Return the text of `showworkflow`."""
    lines = [name_of(details.instance), ""]
    lines += [f"  {line}" for line in facts(_facts(details, paint_status))]
    for title, body in _sections(details, paint_status):
        lines += ["", title, *(f"  {line}".rstrip() for line in body)]
    if details.cut:
        lines += ["", f"Only the first hundred are shown of: {', '.join(details.cut)}"]
    return "\n".join(lines)


def _facts(details: Details, paint_status: Paint) -> Iterator[tuple[str, object]]:
    row, now = details.instance, details.now
    yield "Status", paint_status(row.status)
    yield "Execution ID", row.execution_id
    if details.executions > 1:
        command = f"listworkflows --instance-id {shell_word(row.instance_id)}"
        yield "Executions", f"{details.executions:,} of this id (`{command}` lists them)"
    yield "Attempt", row.attempt if row.attempt > 1 else ""
    yield "Queue", one_line(row.queue)
    yield "Version", one_line(row.version)
    yield "Started", f"{time_of(row.created_at)} ({relative_time(row.created_at, now)})"
    if row.closed_at is not None:
        yield "Closed", f"{time_of(row.closed_at)} ({relative_time(row.closed_at, now)})"
        yield "Duration", format_duration(row.closed_at - row.created_at)
    hint = "" if details.events is not None or not details.history_length else " (--history lists them)"
    yield "History", f"{details.history_length:,} {'event' if details.history_length == 1 else 'events'}{hint}"
    yield "Held by", _holder(details)
    yield "Next try", relative_time(details.live.next_try, now) if details.live.next_try else ""
    yield "Parent", name_of(details.parent) if details.parent is not None else ""
    yield "Subject", one_line(details.subject)


def _holder(details: Details) -> str:
    if details.live.open_row is None or details.owner is not None:
        return one_line(details.owner or "")
    return "" if details.instance.queue in details.workers.queues else "nobody: no live worker serves its queue"


def _sections(details: Details, paint_status: Paint) -> Iterator[tuple[str, Sequence[str]]]:
    row, live = details.instance, details.live
    limit = None if details.with_payloads else _SHORT
    yield "Input", _call(row.input, registry.workflows.get(row.name), limit)
    if row.result is not None:
        yield "Result", as_text(value_of(row.result), limit)
    if reason := reason_of(row):
        yield _REASONS.get(InstanceStatus(row.status), "Failure"), block(reason, indent="")
    if attributes := display_attributes(row.attributes):
        yield "Attributes", block(attributes, indent="")
    if live.activities:
        yield "Pending activities", _activities(details)
    if live.timers:
        rows = [
            (timer.command, time_of(timer.fire_at), relative_time(timer.fire_at, details.now)) for timer in live.timers
        ]
        yield "Timers", table(["COMMAND", "FIRES", ""], rows)
    if details.children:
        cells = [(child.status, child.name, shell_word(child.instance_id)) for child in details.children]
        yield "Children", table(["STATUS", "WORKFLOW", "INSTANCE ID"], cells, {0: paint_status})
    if details.messages:
        title = "Undelivered signals: they came after the end" if live.open_row is None else "Unread messages"
        yield title, _messages(details)
    if details.updates:
        yield "Updates", _updates(details)
    if details.events:
        yield "History", _history(details.events, details.with_payloads)


def _call(text: str, definition: Definition | None, limit: int | None) -> list[str]:
    """Return one line for each argument with the name of its parameter, or the text where it is no call."""
    call = call_of(text)
    if not isinstance(call, dict):
        return block(call if limit is None else shortened(call, limit), indent="")
    args, kwargs = call["args"], call["kwargs"]
    parameters = [] if definition is None else list(definition.signature.signature.parameters.values())
    names = [parameter.name for parameter in parameters if parameter.kind in _BY_POSITION]
    lines: list[str] = []
    for name, value in [*zip_longest(names[: len(args)], args), *kwargs.items()]:
        first, *rest = as_text(value, limit)
        lines += [f"{one_line(name)} = {first}" if name else first, *rest]
    return lines or ["no arguments"]


def _activities(details: Details) -> list[str]:
    shown = [
        display_activity(task, details.workers.activity_queues, details.workers.name, details.now)
        for task in details.live.activities
    ]
    rows = [
        (
            activity.command, activity.name, activity.queue, activity.attempt,
            activity.state + (": no live worker serves this queue" if activity.has_no_worker else ""),
            activity.last_failure or "",
        )
        for activity in shown
    ]  # fmt: skip
    lines = table(["COMMAND", "ACTIVITY", "QUEUE", "ATTEMPT", "STATE", "LAST ERROR"], rows)
    for activity in shown if details.with_payloads else ():
        lines += [f"Input of command {activity.command}"]
        text = details.activity_inputs.get(activity.command, "null")
        lines += [f"  {line}" for line in _call(text, registry.activities.get(activity.name), None)]
    return lines


def _timers(details: Details) -> list[str]:
    rows = [(row.command, time_of(row.fire_at), relative_time(row.fire_at, details.now)) for row in details.live.timers]
    return table(["COMMAND", "FIRES", ""], rows)


def _messages(details: Details) -> list[str]:
    rows = [
        (row["type"], event_subject(row["head"])[1], time_of(row["created_at"]), *_data(row, details.with_payloads))
        for row in details.messages
    ]
    return table(["MESSAGE", "NAME", "SENT", *(["DATA"] if details.with_payloads else [])], rows)


def _updates(details: Details) -> list[str]:
    rows = [
        (row.status, row.name, time_of(row.created_at), row.update_id, summarize_failure(row.failure) or "")
        for row in details.updates
    ]
    return table(["STATUS", "UPDATE", "SENT", "UPDATE ID", "ERROR"], rows)


def _history(events: Sequence[Mapping[str, Any]], with_payloads: bool) -> list[str]:
    shown = display_events({**row, "data_text": None} for row in events)
    rows = [
        (event.sequence, time_of(event.time), event.type, event.command or "", event.name, *_data(row, with_payloads))
        for event, row in zip(shown, events, strict=True)
    ]
    return table(["#", "TIME", "EVENT", "COMMAND", "NAME", *(["DATA"] if with_payloads else [])], rows)


def _data(row: Mapping[str, Any], with_payloads: bool) -> list[str]:
    return [row["data_text"]] if with_payloads else []

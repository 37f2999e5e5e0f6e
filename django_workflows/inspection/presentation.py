"""Rows and stored texts turned into what is shown of them: pure functions, no queries, no HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.db.models import TextChoices
from django.utils.translation import gettext as _

from django_workflows.models import WorkflowUpdate

# What one panel or one history row shows at most; also what the queries fetch at most.
PAYLOAD_LIMIT = 64 * 1024
PREVIEW_LENGTH = 80
DEPTH_LIMIT = 100
FAILURE_LIMIT = 20

# The closing quote is optional, so that garbage takes no longer than JSON.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?')

# The leading fields of an event as the codec writes them: readable also where the data is cut off.
_EVENT_HEAD = re.compile(
    r'\{(?:"command":(?P<command>\d{1,10})(?=[,}]))?(?:,?"(?:fire_at|update_id)":"[^"]*")?'
    r',?(?:"(?:name|patch)":(?P<name>"(?:[^"\\]|\\.)*"))?'
)


@dataclass(frozen=True)
class PayloadDisplay:
    """A stored payload: indented where it is JSON and not nested too deeply, else as it is."""

    text: str
    preview: str
    length: int  # in characters, of all that is stored
    is_indented: bool
    is_truncated: bool


def display_payload(text: str | None, length: int | None = None) -> PayloadDisplay | None:
    """Return how to show `text`, which may be the beginning of a payload of `length` characters."""
    if text is None:
        return None
    length = len(text) if length is None else length
    is_truncated = length > PAYLOAD_LIMIT or len(text) > PAYLOAD_LIMIT
    shown = text[:PAYLOAD_LIMIT]
    pretty = None if is_truncated else indented(shown)
    return PayloadDisplay(
        text=shown if pretty is None else pretty,
        preview=shown if len(shown) <= PREVIEW_LENGTH else shown[:PREVIEW_LENGTH] + "…",
        length=length,
        is_indented=pretty is not None,
        is_truncated=is_truncated,
    )


def indented(text: str) -> str | None:
    """Return JSON text indented; None where it is no JSON, nested too deeply, or would become too long."""
    if _depth(text) > DEPTH_LIMIT:
        return None
    # Formats without decoding: numbers, key order and repeated keys stay as they are stored.
    try:
        pretty = msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return None
    return pretty if len(pretty) <= 4 * PAYLOAD_LIMIT else None


def _depth(text: str) -> int:
    """Return how deep JSON text nests: indentation grows with the product of depth and length."""
    if text.count("[") + text.count("{") <= DEPTH_LIMIT:
        return 0
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def display_attributes(attributes: object) -> str:
    """Return the attributes as indented JSON, or nothing where there are none."""
    if not attributes:
        return ""
    return _clip(json.dumps(attributes, indent=2, ensure_ascii=False, default=str))


@dataclass(frozen=True)
class FailureDisplay:
    """One exception of a failure; `relation` says how it belongs to the one above it, nothing for the outermost."""

    relation: str
    type: str
    message: str
    traceback: str
    arguments: PayloadDisplay | None


def display_failure(text: str) -> list[FailureDisplay] | None:
    """Return the failure, what it was made of and its causes, outermost first; None where `text` is no failure."""
    try:
        failure = json.loads(text)
    except (ValueError, RecursionError):
        return None
    shown: list[FailureDisplay] = []
    _collect_failures(failure, "", shown)
    return shown or None


def _collect_failures(failure: Any, relation: str, shown: list[FailureDisplay]) -> None:
    """Append the exception, the members of its group and its causes; every level appends, so FAILURE_LIMIT ends it."""
    if not isinstance(failure, dict) or not isinstance(failure.get("type"), str) or len(shown) >= FAILURE_LIMIT:
        return
    shown.append(_display_exception(failure, relation))
    members = failure.get("members")
    for member in members if isinstance(members, list) else []:
        _collect_failures(member, _("One of the group"), shown)
    _collect_failures(failure.get("cause"), _("Caused by"), shown)


def _display_exception(failure: Mapping[str, Any], relation: str) -> FailureDisplay:
    arguments = {name: failure[name] for name in ("args", "attributes") if failure.get(name)}
    return FailureDisplay(
        relation=relation,
        type=_clip(failure["type"]).removeprefix("builtins."),
        message=_clip(failure.get("message")),
        traceback=_clip(failure.get("traceback")),
        arguments=display_payload(printable(json.dumps(arguments, ensure_ascii=False))) if arguments else None,
    )


def _clip(value: object) -> str:
    text = "" if value is None else printable(str(value))
    return text if len(text) <= PAYLOAD_LIMIT else text[:PAYLOAD_LIMIT] + "…"


def printable(text: str) -> str:
    """Return the text without lone surrogates, which JSON escapes can hold and no page can be encoded with."""
    return text.encode("utf-8", "replace").decode()


def summarize_failure(text: str | None) -> str | None:
    """Return one line about a failure; an unreadable one only says so, since it may hold anything."""
    if not text:
        return None
    chain = display_failure(text)
    if chain is None:
        return _("Unreadable (%(length)d characters)") % {"length": len(text)}
    line = f"{chain[0].type}: {chain[0].message}" if chain[0].message else chain[0].type
    return line if len(line) <= 500 else line[:500] + "…"


def format_duration(duration: timedelta) -> str:
    """Return a duration in its two largest units: 45 ms, 12.3 s, 5 min 02 s, 3 h 07 min, 12 d 4 h."""
    milliseconds = max(0, round(duration / timedelta(milliseconds=1)))
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    seconds = round(milliseconds / 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def relative_time(moment: datetime, now: datetime) -> str:
    """Return how far away `moment` is: "in 5.0 s" or "2 min 00 s ago"."""
    if moment > now:
        return _("in %(duration)s") % {"duration": format_duration(moment - now)}
    return _("%(duration)s ago") % {"duration": format_duration(now - moment)}


@dataclass(frozen=True)
class ActivityDisplay:
    """One pending activity."""

    command: int
    name: str
    queue: str
    attempt: int
    state: str
    expires_at: datetime | None
    has_no_worker: bool
    last_heartbeat: str | None
    details: PayloadDisplay | None  # of the last heartbeat; None where the viewer may not see them
    last_failure: str | None


def display_activity(
    task: Any, served_queues: Collection[str], worker_name: Callable[[int], str], now: datetime
) -> ActivityDisplay:
    """Return what is said about one ActivityTask row."""
    is_waiting = task.available_at is not None
    if not is_waiting and task.owner_id is None:
        state = _("Deferred: to be completed with its token")
    elif not is_waiting:
        state = _("Running on %(worker)s") % {"worker": worker_name(task.owner_id)}
    elif task.available_at > now:
        state = _("Next attempt %(time)s") % {"time": relative_time(task.available_at, now)}
    else:
        state = _("Waiting for a worker for %(duration)s") % {"duration": format_duration(now - task.available_at)}
    return ActivityDisplay(
        command=task.command,
        name=task.name,
        queue=task.queue,
        attempt=task.attempt,
        state=state,
        expires_at=task.expires_at,
        has_no_worker=is_waiting and task.queue not in served_queues,
        last_heartbeat=None if task.heartbeat_at is None else relative_time(task.heartbeat_at, now),
        details=display_payload(getattr(task, "heartbeat_text", None), getattr(task, "heartbeat_length", None)),
        last_failure=summarize_failure(task.last_failure),
    )


@dataclass(frozen=True)
class TimerDisplay:
    """One waiting timer."""

    command: int
    fire_at: datetime
    due: str


def display_timer(timer: Any, now: datetime) -> TimerDisplay:
    return TimerDisplay(command=timer.command, fire_at=timer.fire_at, due=relative_time(timer.fire_at, now))


@dataclass(frozen=True)
class MessageDisplay:
    """One inbox row that its instance has not read yet."""

    type: str
    command: int | None
    name: str
    created_at: datetime
    is_parked: bool
    length: int
    data: PayloadDisplay | None  # None where the viewer may not see it


def display_message(row: Mapping[str, Any]) -> MessageDisplay:
    command, name = event_subject(row["head"])
    return MessageDisplay(
        type=row["type"],
        command=command,
        name=name,
        created_at=row["created_at"],
        is_parked=row["queue"] is None,
        length=row["data_length"],
        data=display_payload(row.get("data_text"), row["data_length"]),
    )


@dataclass(frozen=True)
class DataDisplay:
    """A stored payload of so many characters."""

    length: int
    data: PayloadDisplay | None  # None where the viewer may not see it


@dataclass(frozen=True)
class UpdateDisplay:
    """One update that was asked of an instance."""

    name: str
    status: str
    created_at: datetime
    answered_at: datetime | None
    input: DataDisplay
    result: DataDisplay
    failure: str | None


def display_update(row: Mapping[str, Any]) -> UpdateDisplay:
    return UpdateDisplay(
        name=row["name"],
        status=status_label(WorkflowUpdate.Status, row["status"]),
        created_at=row["created_at"],
        answered_at=row["answered_at"],
        input=_display_data(row, "input"),
        result=_display_data(row, "result"),
        failure=summarize_failure(row["failure"]),
    )


def status_label(statuses: type[TextChoices], stored: str) -> str:
    """Return what a stored status is called; one of a newer release by its stored name."""
    return str(statuses(stored).label) if stored in statuses.values else stored


def _display_data(row: Mapping[str, Any], column: str) -> DataDisplay:
    length = row[f"{column}_length"] or 0
    return DataDisplay(length, display_payload(row.get(f"{column}_text"), length))


@dataclass(frozen=True)
class EventDisplay:
    """One row of the history table."""

    sequence: int
    type: str
    time: datetime
    command: int | None
    name: str
    length: int
    data: PayloadDisplay | None  # None where the viewer may not see it


def display_events(rows: Iterable[Mapping[str, Any]]) -> list[EventDisplay]:
    """Return the rows of one page; a result takes the name of its command where that is on the same page."""
    rows = list(rows)
    subjects = [event_subject(row["head"]) for row in rows]
    names = {command: name for command, name in subjects if name}
    return [
        EventDisplay(
            sequence=row["sequence"],
            type=row["type"],
            time=row["time"],
            command=command,
            name=name or (names.get(command, "") if command is not None else ""),
            length=row["data_length"],
            data=display_payload(row.get("data_text"), row["data_length"]),
        )
        for row, (command, name) in zip(rows, subjects, strict=True)
    ]


def event_subject(head: str) -> tuple[int | None, str]:
    """Return the command number and the name at the beginning of an event's data, where it has them."""
    match = _EVENT_HEAD.match(head)
    if match is None:
        return None, ""
    command = int(match["command"] or 0) or None  # 0 is the number of events that no command is behind
    try:
        name = printable(str(json.loads(match["name"]))) if match["name"] else ""
    except ValueError:
        name = ""
    return command, name


def display_queues(queues: object) -> str:
    """Return the names in a worker's `queues` column, whatever it holds."""
    return ", ".join(map(str, queues)) if isinstance(queues, list) else str(queues)

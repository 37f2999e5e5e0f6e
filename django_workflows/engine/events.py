"""The history events of an instance, one frozen struct per kind.

*Input events* come from outside (the inbox, a finished activity, a due timer) and make the workflow's code run.
*Command events* record what the code then decided; they follow their input event directly in the history, so a
history is one line of cause and effect that replays the same whole, event by event, or cut at any input event.

`command` is the number of the decision inside its instance: it correlates `ActivityScheduled(command=3)` with
`ActivityCompleted(command=3)`. Field names are stored in histories for ever: add fields with defaults, rename none.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import msgspec
from msgspec import Raw

from django_workflows.exceptions import PayloadError
from django_workflows.failures import Failure

NULL = Raw(b"null")


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Anything that a history can hold."""

    is_input: ClassVar[bool] = False

    @property
    def type(self) -> str:
        return type(self).__name__

    def describe(self) -> str:
        """Return the decision in words, for error messages."""
        return self.type


class InputEvent(Event, frozen=True):
    """Something that happened outside the workflow's code."""

    is_input: ClassVar[bool] = True


class ResultEvent(InputEvent, frozen=True):
    """The outcome of an earlier command."""

    command: int


class CommandEvent(Event, frozen=True, kw_only=True):
    """A decision of the workflow's code."""

    command: int

    def describe(self) -> str:
        return f"{self.type} (command {self.command})"

    def same_decision(self, other: CommandEvent) -> bool:
        """Tell whether the code decided the same; arguments and durations may differ, kinds and names may not."""
        return type(self) is type(other) and self.command == other.command


class NamedCommandEvent(CommandEvent, frozen=True, kw_only=True):
    """A decision about something that has a registered name."""

    name: str

    def describe(self) -> str:
        return f"{self.type} {self.name!r} (command {self.command})"

    def same_decision(self, other: CommandEvent) -> bool:
        return CommandEvent.same_decision(self, other) and self.name == getattr(other, "name", None)


class CarriedSignal(msgspec.Struct, frozen=True):
    """An unread signal that a continued execution inherits."""

    name: str
    value: Raw


# Input events


class InstanceStarted(InputEvent, frozen=True):
    signals: list[CarriedSignal] = []


class SignalReceived(InputEvent, frozen=True):
    name: str
    value: Raw = NULL


class CancelRequested(InputEvent, frozen=True):
    reason: str = ""


class ActivityCompleted(ResultEvent, frozen=True):
    result: Raw = NULL


class ActivityFailed(ResultEvent, frozen=True, kw_only=True):
    failure: Failure


class TimerFired(ResultEvent, frozen=True):
    pass


class ChildCompleted(ResultEvent, frozen=True):
    result: Raw = NULL


class ChildFailed(ResultEvent, frozen=True, kw_only=True):
    failure: Failure


# Command events


class ActivityScheduled(NamedCommandEvent, frozen=True, kw_only=True):
    input: Raw
    queue: str
    options: dict[str, Any] = {}


class ActivityCancelled(CommandEvent, frozen=True, kw_only=True):
    pass


class TimerStarted(CommandEvent, frozen=True, kw_only=True):
    fire_at: datetime
    name: str = ""


class TimerCancelled(CommandEvent, frozen=True, kw_only=True):
    pass


class SideEffectRecorded(CommandEvent, frozen=True, kw_only=True):
    value: Raw
    failure: Failure | None = None  # what the function raised instead of returning a value


class BackgroundTaskFailed(CommandEvent, frozen=True, kw_only=True):
    """The code can no longer await this failed task, so the instance fails.

    Recorded because replay could not find it out again: it depends on when Python collects garbage.
    """

    task: int  # its creation number


class ChildScheduled(NamedCommandEvent, frozen=True, kw_only=True):
    input: Raw
    queue: str
    execution_id: str
    instance_id: str
    version: str = ""


class ChildCancelRequested(CommandEvent, frozen=True, kw_only=True):
    pass


# How an execution ends: command events too, except InstanceTerminated, which no code decides.


class ClosingEvent(CommandEvent, frozen=True, kw_only=True):
    """The last event of an execution."""

    def describe(self) -> str:
        return self.type


class InstanceCompleted(ClosingEvent, frozen=True, kw_only=True):
    result: Raw


class InstanceFailed(ClosingEvent, frozen=True, kw_only=True):
    failure: Failure

    def describe(self) -> str:
        return f"{self.type} with {self.failure.type}: {self.failure.message}"


class InstanceCancelled(ClosingEvent, frozen=True, kw_only=True):
    pass


class InstanceContinuedAsNew(ClosingEvent, frozen=True, kw_only=True):
    input: Raw
    execution_id: str
    signals: list[CarriedSignal] = []
    version: str = ""  # of the code that continues


class InstanceTerminated(ClosingEvent, frozen=True, kw_only=True):
    reason: str = ""


TYPES: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        InstanceStarted, SignalReceived, CancelRequested, ActivityCompleted, ActivityFailed, TimerFired, ChildCompleted,
        ChildFailed, ActivityScheduled, ActivityCancelled, TimerStarted, TimerCancelled, SideEffectRecorded,
        BackgroundTaskFailed, ChildScheduled, ChildCancelRequested, InstanceCompleted, InstanceFailed,
        InstanceCancelled, InstanceContinuedAsNew, InstanceTerminated,
    )
}  # fmt: skip

_encoder = msgspec.json.Encoder()
_decoders: dict[str, msgspec.json.Decoder[Any]] = {name: msgspec.json.Decoder(cls) for name, cls in TYPES.items()}


def encode_event(event: Event) -> str:
    """Return the event's fields as JSON text; its type is stored beside it."""
    return _encoder.encode(event).decode()


def decode_event(type_name: str, data: str) -> Event:
    """Return the event that `encode_event` wrote; raises PayloadError for an unknown type or broken data."""
    try:
        event: Event = _decoders[type_name].decode(data)
    except KeyError:
        raise PayloadError(
            f"expected one of the known event types, found {type_name!r}; was it written by a newer release?"
        ) from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PayloadError(
            f"the data of a {type_name} event cannot be decoded: {error}; found {data[:200]!r}"
        ) from error
    return event

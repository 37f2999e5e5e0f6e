"""The history events of an instance, one frozen struct per kind.

*Input events* come from outside (the inbox, a finished activity, a due timer) and make the workflow's code run.
*Command events* record what the code then decided; they follow their input event directly in the history, so a
history is one line of cause and effect that replays the same whole, event by event, or cut at any input event.

`command` is the number of the decision inside its instance: it correlates `ActivityScheduled(command=3)` with
`ActivityCompleted(command=3)`. 0 means that it has none: the code did not decide it (a termination), or replay does not
compare it (a patch). Field names are stored in histories for ever: add fields with defaults, rename none.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Raw

from django_workflows.exceptions import PayloadError
from django_workflows.failures import Failure
from django_workflows.registry import Names, activities, workflows
from django_workflows.retries import RetryPolicy

NULL = Raw(b"null")

ParentClose = Literal["cancel", "terminate", "abandon"]


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
    """A decision about something that has a name; one that was renamed is still the same under its alias."""

    registered: ClassVar[Names[Any] | None] = None

    name: str

    def describe(self) -> str:
        return f"{self.type} {self.name!r} (command {self.command})"

    def same_decision(self, other: CommandEvent) -> bool:
        return CommandEvent.same_decision(self, other) and self._is_called(getattr(other, "name", ""))

    def _is_called(self, name: str) -> bool:
        if name == self.name or self.registered is None:
            return name == self.name
        definition = self.registered.get(name)
        return definition is not None and definition is self.registered.get(self.name)


class InstanceOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an instance was started, beside its queue: stored as JSON on its row."""

    retry: dict[str, Any] | None = None  # a RetryPolicy
    parent_close: ParentClose = "cancel"
    context: dict[str, Any] = {}  # what the propagators carried from the starter

    @property
    def policy(self) -> RetryPolicy | None:
        return RetryPolicy.from_json(self.retry) if self.retry is not None else None

    def encode(self) -> str:
        return _encoder.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> InstanceOptions:
        return _options_decoder.decode(text)


class CarriedSignal(msgspec.Struct, frozen=True):
    """An unread signal that a continued execution inherits."""

    name: str
    value: Raw


# Input events


class InstanceStarted(InputEvent, frozen=True):
    signals: list[CarriedSignal] = []
    start_at: datetime | None = None  # the code waits until then: the pause before another attempt
    suggest_at: int = 0  # length of the history from which continue-as-new is suggested; 0: never


class SignalReceived(InputEvent, frozen=True):
    name: str
    value: Raw = NULL


class SignalWithStart(InputEvent, frozen=True):
    """In inboxes only: a signal that starts an instance anew where the one that it was for closes without it."""

    name: str
    value: Raw
    start: Raw  # what is started

    @property
    def signal(self) -> SignalReceived:
        return SignalReceived(self.name, self.value)


class UpdateRequested(InputEvent, frozen=True):
    """A message that is answered; only in a history if it was accepted."""

    update_id: str
    name: str
    input: Raw


class CancelRequested(InputEvent, frozen=True):
    reason: str = ""


class TerminateRequested(InputEvent, frozen=True):
    """The parent closed, and its `parent_close` says that this child ends at once."""

    reason: str = ""


class ActivityCompleted(ResultEvent, frozen=True):
    result: Raw = NULL
    deferred: bool = False  # completed by its token: no worker holds the task


class ActivityFailed(ResultEvent, frozen=True, kw_only=True):
    failure: Failure
    deferred: bool = False


class TimerFired(ResultEvent, frozen=True):
    pass


class ChildStarted(ResultEvent, frozen=True):
    """A child with an id of the author's choice exists; that it does not is a ChildFailed."""


class ChildCompleted(ResultEvent, frozen=True):
    result: Raw = NULL
    cancel_requested: bool = False  # it knew by then that it was asked to cancel


class ChildFailed(ResultEvent, frozen=True, kw_only=True):
    failure: Failure
    cancel_requested: bool = False


class MessageDelivered(ResultEvent, frozen=True):
    """The message is in the inbox of its addressee."""


class MessageRefused(ResultEvent, frozen=True, kw_only=True):
    failure: Failure


# Command events


class ActivityScheduled(NamedCommandEvent, frozen=True, kw_only=True):
    registered: ClassVar[Names[Any] | None] = activities

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
    registered: ClassVar[Names[Any] | None] = workflows

    input: Raw
    queue: str
    execution_id: str
    instance_id: str
    version: str = ""
    chosen_id: bool = False  # the author's, so it may be taken: the child is started in a transaction of its own
    options: InstanceOptions = InstanceOptions()
    attributes: dict[str, Any] = {}
    subject: tuple[str, str] | None = None  # model label and primary key


class ChildCancelRequested(CommandEvent, frozen=True, kw_only=True):
    terminate: bool = False

    @property
    def policy(self) -> ParentClose:
        return "terminate" if self.terminate else "cancel"


class MessageCommand(CommandEvent, frozen=True, kw_only=True):
    """A message to another instance."""

    instance_id: str
    execution_id: str | None = None
    child: int = 0  # the command that scheduled the addressee: only this child is meant, whoever has its id later


class SignalSent(MessageCommand, frozen=True, kw_only=True):
    name: str
    value: Raw

    def describe(self) -> str:
        return f"{self.type} {self.name!r} to {self.instance_id!r} (command {self.command})"


class CancelSent(MessageCommand, frozen=True, kw_only=True):
    reason: str = ""


class PatchRecorded(CommandEvent, frozen=True, kw_only=True):
    """The code asked for a patch while it ran for the first time, so this execution has it."""

    patch: str
    deprecated: bool = False


class AttributesSet(CommandEvent, frozen=True, kw_only=True):
    attributes: Raw  # a JSON object


class AnswerEvent(CommandEvent, frozen=True, kw_only=True):
    """The end of an accepted update."""

    update_id: str

    def describe(self) -> str:
        return f"{self.type} of update {self.update_id} (command {self.command})"

    def same_decision(self, other: CommandEvent) -> bool:
        return CommandEvent.same_decision(self, other) and getattr(other, "update_id", "") == self.update_id


class UpdateCompleted(AnswerEvent, frozen=True, kw_only=True):
    result: Raw


class UpdateFailed(AnswerEvent, frozen=True, kw_only=True):
    failure: Failure


# How an execution ends: command events too, those without a number imposed on the code.


class ClosingEvent(CommandEvent, frozen=True, kw_only=True):
    """The last event of an execution."""

    def describe(self) -> str:
        return self.type


class InstanceCompleted(ClosingEvent, frozen=True, kw_only=True):
    result: Raw
    cancel_requested: bool = False


class InstanceFailed(ClosingEvent, frozen=True, kw_only=True):
    failure: Failure
    next_execution_id: str = ""  # set: the retry policy allows another attempt
    next_start: datetime | None = None
    signals: list[CarriedSignal] = []  # which that attempt inherits
    cancel_requested: bool = False

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
        InstanceStarted, SignalReceived, SignalWithStart, UpdateRequested, CancelRequested, TerminateRequested,
        ActivityCompleted, ActivityFailed, TimerFired, ChildStarted, ChildCompleted, ChildFailed, MessageDelivered,
        MessageRefused, ActivityScheduled, ActivityCancelled, TimerStarted, TimerCancelled, SideEffectRecorded,
        BackgroundTaskFailed, ChildScheduled, ChildCancelRequested, SignalSent, CancelSent, PatchRecorded,
        AttributesSet, UpdateCompleted, UpdateFailed, InstanceCompleted, InstanceFailed, InstanceCancelled,
        InstanceContinuedAsNew, InstanceTerminated,
    )
}  # fmt: skip

_encoder = msgspec.json.Encoder()
_options_decoder = msgspec.json.Decoder(InstanceOptions)
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
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise PayloadError(
            f"the data of a {type_name} event cannot be decoded: {error}; found {data[:200]!r}"
        ) from error
    return event

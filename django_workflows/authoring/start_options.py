"""How an instance is started: the options that `Workflow.using` takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import msgspec

from django_workflows import payloads
from django_workflows.engine.events import InstanceOptions, ParentClose
from django_workflows.keys import key_of
from django_workflows.retries import RetryPolicy

from . import propagation

_LONGEST_QUEUE = 100
_LONGEST_SUBJECT = 64  # characters of a primary key as text

ConflictPolicy = Literal["raise", "use_existing", "terminate_existing"]


class WorkflowCallOptions(TypedDict, total=False):
    """The options of one start, as `using()` takes them."""

    instance_id: str | None
    queue: str | None
    on_conflict: ConflictPolicy
    retry: RetryPolicy | None
    parent_close: ParentClose
    subject: Any
    attributes: Mapping[str, Any] | None


@dataclass(frozen=True)
class StartOptions:
    """How one instance is started; see `Workflow.using`."""

    instance_id: str | None = None
    queue: str | None = None
    on_conflict: ConflictPolicy = "raise"
    retry: RetryPolicy | None = None
    parent_close: ParentClose = "cancel"
    subject: Any = None
    attributes: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, choices in (("on_conflict", ConflictPolicy), ("parent_close", ParentClose)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"expected {name} to be one of {get_args(choices)}, found {getattr(self, name)!r}")
        if self.instance_id is not None:
            key_of(self.instance_id)
        if self.queue is not None and not (isinstance(self.queue, str) and 0 < len(self.queue) <= _LONGEST_QUEUE):
            raise ValueError(f"expected queue to be a name of 1 to {_LONGEST_QUEUE} characters, found {self.queue!r}")
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            raise TypeError(f"expected retry to be a RetryPolicy or None, found {self.retry!r}")
        if self.attributes is not None and not isinstance(self.attributes, Mapping):
            raise TypeError(f"expected attributes to be a dict of JSON values, found {self.attributes!r}")
        if self.subject is not None:
            _check_subject(self.subject)

    @property
    def subject_reference(self) -> tuple[str, str] | None:
        """The label of the subject's model, and its primary key."""
        return None if self.subject is None else (self.subject._meta.label_lower, str(self.subject.pk))

    def for_instance(self) -> InstanceOptions:
        """Return what is stored with an instance that is started here and now."""
        return InstanceOptions(
            retry=None if self.retry is None else self.retry.to_json(),
            parent_close=sys.intern(self.parent_close),  # type: ignore[arg-type]  # msgspec tells defaults by identity
            context=propagation.capture(),
        )

    def stored_attributes(self, limit: int | None) -> dict[str, Any]:
        """Return the attributes as JSON has them; raises PayloadError for what JSON cannot hold, or over the limit."""
        if not self.attributes:
            return {}
        stored: dict[str, Any] = msgspec.json.decode(payloads.encode(self.attributes, what="attributes", limit=limit))
        return stored


def _check_subject(subject: Any) -> None:
    if not hasattr(subject, "_meta"):
        raise TypeError(f"expected a model object as subject, found {subject!r}")
    if subject.pk is None:
        raise ValueError(
            f"expected a saved object as subject, found an unsaved {type(subject).__name__}; save it first"
        )
    if len(str(subject.pk)) > _LONGEST_SUBJECT:
        raise ValueError(
            f"expected the primary key of the subject to have at most {_LONGEST_SUBJECT} characters as text, found "
            f"{str(subject.pk)!r}"
        )

"""Reading a history in blocks, and comparing what the code decides with what it decided then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest

from django_workflows.exceptions import NondeterminismError

from .events import CommandEvent, Event, InputEvent, ResultEvent

_REMEDY = "Was the workflow changed while this instance was open? Put the old code back, or guard the change."


@dataclass
class Block:
    """An input event, its number in the history, and the numbered decisions that followed it."""

    number: int
    time: datetime
    event: InputEvent
    end: int  # the number of the last event before the next input event
    decisions: list[CommandEvent] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of the decisions in the history


def blocks(history: Iterable[tuple[datetime, Event]]) -> Iterator[Block]:
    """Cut a history before each of its input events."""
    block: Block | None = None
    for number, (time, event) in enumerate(history, start=1):
        if isinstance(event, InputEvent):
            if block is not None:
                yield block
            block = Block(number, time, event, end=number)
        elif block is not None:
            block.end = number
            if isinstance(event, CommandEvent) and event.command:
                block.decisions.append(event)
                block.numbers.append(number)
    if block is not None:
        yield block


def compare(
    block: Block, attempted: Sequence[CommandEvent], instance: str, locate: Callable[[CommandEvent | None], str]
) -> None:
    """Raise NondeterminismError at the first decision that is not the recorded one; `locate` gives its source line."""
    for expected, actual, number in zip_longest(block.decisions, attempted, block.numbers):
        if expected is None or actual is None or not expected.same_decision(actual):
            location = locate(actual)
            raise NondeterminismError(
                f"event {number or block.end + 1} of {instance}: the history holds "
                f"{expected.describe() if expected else 'no further decision here'}, but the code decided "
                f"{actual.describe() if actual else 'nothing'}{f' at {location}' if location else ''}. {_REMEDY}"
            )


def not_awaited(block: Block, instance: str, location: str) -> NondeterminismError:
    """Return the error for an input event that the code has no use for."""
    event = block.event
    of_command = f" of command {event.command}" if isinstance(event, ResultEvent) else ""
    return NondeterminismError(
        f"event {block.number} of {instance}: the history holds {event.type}{of_command}, but the code is not waiting "
        f"for it{f'; it is at {location}' if location else ''}. {_REMEDY}"
    )

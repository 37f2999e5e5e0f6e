"""What must be true of the tables when everything has come to rest."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from django_workflows import replayer
from django_workflows.engine.events import ClosingEvent, Event, decode_event
from django_workflows.engine import events as ev
from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    InstanceStatus,
    OpenInstance,
    Timer,
    WorkflowInstance,
    WorkflowUpdate,
)
from django_workflows.store.database import Database
from tests.testapp.models import Effect

from .application import Ledger
from .world import Violation, World

_OUTCOMES = (
    ev.ActivityCompleted, ev.ActivityFailed, ev.ActivityCancelled, ev.TimerFired, ev.TimerCancelled, ev.ChildCompleted,
    ev.ChildFailed, ev.MessageDelivered, ev.MessageRefused,
)  # fmt: skip
_AWAITED = (ev.ActivityScheduled, ev.TimerStarted, ev.ChildScheduled, ev.SignalSent, ev.CancelSent)


def expect(condition: object, text: str) -> None:
    if not condition:
        raise Violation(text)


def what_is_left() -> str:
    """Return what keeps a world from resting, in words."""
    opened = [f"{row.instance_id} (owner {row.owner_id}, {row.history_length} events)" for row in OpenInstance.objects.all()]
    unread = [f"{row.id} {row.type} for {row.chain_id}" for row in InboxEvent.objects.filter(queue__isnull=False)]
    tasks = [f"{row.pk} {row.name} (owner {row.owner_id})" for row in ActivityTask.objects.all()]
    timers = [f"{row.pk}" for row in Timer.objects.all()]
    return f"open {opened}, inbox {unread}, tasks {tasks}, timers {timers}"


def check(world: World, ledger: Ledger) -> None:
    expect(not world.errors, f"errors were logged: {world.errors}")
    State(world, ledger).check()


class State:
    """Everything that is stored, read once."""

    def __init__(self, world: World, ledger: Ledger) -> None:
        self.world, self.ledger = world, ledger
        self.instances = {row.pk: row for row in WorkflowInstance.objects.order_by("id")}
        self.histories: dict[int, list[Event]] = defaultdict(list)
        self.sequences: dict[int, list[int]] = defaultdict(list)
        for row in HistoryEvent.objects.order_by("instance_id", "sequence"):
            self.histories[row.instance_id].append(decode_event(row.type, row.data))
            self.sequences[row.instance_id].append(row.sequence)
        self.effects = Counter(Effect.objects.values_list("key", flat=True))

    def check(self) -> None:
        self._check_nothing_is_left()
        for pk, row in self.instances.items():
            self._check_history(row, self.histories[pk])
            self._check_commands(row, self.histories[pk])
            self._check_effects(row, self.histories[pk])
            replayer.replay(Database(), pk).dispose()

    def _check_nothing_is_left(self) -> None:
        left = OpenInstance.objects.exists() or ActivityTask.objects.exists() or Timer.objects.exists()
        left = left or InboxEvent.objects.exclude(type="SignalReceived", queue__isnull=True).exists()
        expect(not left, f"orphans at rest: {what_is_left()}")
        expect(set(self.histories) <= set(self.instances), "a history without an instance")

    def _check_history(self, row: WorkflowInstance, history: list[Event]) -> None:
        name = f"execution {row.pk} of {row.instance_id}"
        numbers = self.sequences[row.pk]
        expect(numbers == list(range(1, len(numbers) + 1)), f"{name}: the history is not 1..n: {numbers}")
        expect(InstanceStatus(row.status).is_closed and row.closed_at, f"{name}: at rest it is {row.status}")
        expect(row.history_length == len(history), f"{name}: {len(history)} events, the row says {row.history_length}")
        closings = [place for place, event in enumerate(history, 1) if isinstance(event, ClosingEvent)]
        expect(closings == [len(history)], f"{name}: closes at {closings} of {len(history)}")

    def _check_commands(self, row: WorkflowInstance, history: list[Event]) -> None:
        name = f"execution {row.pk} of {row.instance_id}"
        outcomes = Counter(event.command for event in history if isinstance(event, _OUTCOMES))
        doubled = {command: count for command, count in outcomes.items() if count > 1}
        expect(not doubled, f"{name}: commands with more than one outcome: {doubled}")
        if isinstance(history[-1], ev.InstanceCompleted):
            for event in history:
                done = not isinstance(event, _AWAITED) or event.command in outcomes or is_left_alone(event)
                expect(done, f"{name}: completed with an open command: {event}")

    def _check_effects(self, row: WorkflowInstance, history: list[Event]) -> None:
        for event in history:
            if isinstance(event, ev.ActivityScheduled) and "apply" in event.name:
                key = f"{row.execution_id}:{json.loads(bytes(event.input))[0][0]}"
                self.effects[key]


def is_left_alone(event: Any) -> bool:
    return isinstance(event, ev.ChildScheduled) and event.options.parent_close == "abandon"

"""What must be true of the tables when everything has come to rest."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from django_workflows import replayer
from django_workflows.engine import events as ev
from django_workflows.engine.events import Event, decode_event
from django_workflows.exceptions import WorkflowsError
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

from .application import Ledger, Sent
from .journal import Journal
from .world import Violation, World

_OUTCOMES = (
    ev.ActivityCompleted, ev.ActivityFailed, ev.ActivityCancelled, ev.TimerFired, ev.TimerCancelled, ev.ChildCompleted,
    ev.ChildFailed, ev.MessageDelivered, ev.MessageRefused,
)  # fmt: skip
_AWAITED = (ev.ActivityScheduled, ev.TimerStarted)  # by whoever returns; of others the code may lose interest
_MADE = (*_AWAITED, ev.ChildScheduled, ev.SignalSent, ev.CancelSent)
_STATUSES: dict[type[Event], InstanceStatus] = {
    ev.InstanceCompleted: InstanceStatus.COMPLETED,
    ev.InstanceFailed: InstanceStatus.FAILED,
    ev.InstanceCancelled: InstanceStatus.CANCELLED,
    ev.InstanceContinuedAsNew: InstanceStatus.CONTINUED_AS_NEW,
    ev.InstanceTerminated: InstanceStatus.TERMINATED,
}


def expect(condition: object, text: str) -> None:
    if not condition:
        raise Violation(text)


def what_is_left() -> str:
    """Return what keeps a world from resting, in words."""
    opened = [
        f"{row.instance_id} (owner {row.owner_id}, {row.history_length} events)" for row in OpenInstance.objects.all()
    ]
    unread = [f"{row.id} {row.type} for {row.chain_id}" for row in InboxEvent.objects.filter(queue__isnull=False)]
    tasks = [f"{row.pk} {row.name} (owner {row.owner_id})" for row in ActivityTask.objects.all()]
    timers = [f"{row.pk}" for row in Timer.objects.all()]
    return f"open {opened}, inbox {unread}, tasks {tasks}, timers {timers}"


def check(world: World, ledger: Ledger) -> None:
    expect(not world.errors, f"errors were logged: {world.errors}")
    state = State(ledger)
    for history in state.histories.values():
        world.facts.update(event.type for event in history)
    world.facts["undelivered signal"] += len(state.undelivered)
    state.check()


class State:
    """Everything that is stored, read once."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.journal = Journal(connections["default"])
        self.instances = {row.pk: row for row in WorkflowInstance.objects.order_by("id")}
        self.histories: dict[int, list[Event]] = {pk: [] for pk in self.instances}
        self.sequences: dict[int, list[int]] = defaultdict(list)
        for row in HistoryEvent.objects.order_by("instance_id", "sequence"):
            expect(row.instance_id in self.instances, "a history without an instance")
            self.histories[row.instance_id].append(decode_event(row.type, row.data))
            self.sequences[row.instance_id].append(row.sequence)
        self.chains: dict[int, list[WorkflowInstance]] = defaultdict(list)
        for instance in self.instances.values():
            self.chains[instance.chain].append(instance)
        self.effects = Counter(Effect.objects.values_list("key", flat=True))
        self.undelivered = [decode_event(row.type, row.data) for row in InboxEvent.objects.order_by("id")]

    def check(self) -> None:
        self._check_nothing_is_left()
        for pk, row in self.instances.items():
            with _naming(row):
                self._check_history(row, self.histories[pk])
                self._check_commands(self.histories[pk])
                self._check_effects(row, self.histories[pk])
                replayer.replay(Database(), pk).dispose()
        if not self.ledger.has_removed:
            for chain in self.chains.values():
                with _naming(chain[0]):
                    self._check_chain(chain)
            self._check_children()
            self._check_starts()
        self.journal.check_activities()
        self._check_signals()
        self._check_updates()

    def _check_nothing_is_left(self) -> None:
        left = OpenInstance.objects.exists() or ActivityTask.objects.exists() or Timer.objects.exists()
        left = left or InboxEvent.objects.exclude(type="SignalReceived", queue__isnull=True).exists()
        for model in (InboxEvent, WorkflowUpdate):
            left = left or model._default_manager.exclude(chain_id__in=self.chains).exists()
        expect(not left, f"orphans at rest: {what_is_left()}")

    def _check_history(self, row: WorkflowInstance, history: list[Event]) -> None:
        numbers = self.sequences[row.pk]
        expect(numbers == list(range(1, len(numbers) + 1)), f"the history is not 1..n: {numbers}")
        expect(InstanceStatus(row.status).is_closed and row.closed_at, f"at rest it is {row.status}")
        expect(row.history_length == len(history), f"{len(history)} events, the row says {row.history_length}")
        closings = [place for place, event in enumerate(history, 1) if isinstance(event, ev.ClosingEvent)]
        expect(closings == [len(history)], f"closes at {closings} of {len(history)}")
        expect(_STATUSES[type(history[-1])] == row.status, f"ends with {history[-1].type}, the row says {row.status}")
        started = [place for place, event in enumerate(history, 1) if isinstance(event, ev.InstanceStarted)]
        expect(started == [1] or isinstance(history[0], ev.InstanceTerminated), f"starts at {started}")

    def _check_commands(self, history: list[Event]) -> None:
        outcomes = Counter(event.command for event in history if isinstance(event, _OUTCOMES))
        doubled = {command: count for command, count in outcomes.items() if count > 1}
        expect(not doubled, f"commands with more than one outcome: {doubled}")
        made = Counter(event.command for event in history if isinstance(event, _MADE))
        expect(set(outcomes) <= set(made), f"outcomes without a command: {set(outcomes) - set(made)}")
        expect(not made or max(made.values()) == 1, f"commands decided twice: {made}")
        if isinstance(history[-1], ev.InstanceCompleted):
            left = [event for event in history if isinstance(event, _AWAITED) and event.command not in outcomes]
            expect(not left, f"completed with open commands: {left}")

    def _check_effects(self, row: WorkflowInstance, history: list[Event]) -> None:
        """What an atomic activity wrote is there once if it completed, and not at all if it failed; others have run."""
        ends = {
            event.command: event for event in history if isinstance(event, ev.ActivityCompleted | ev.ActivityFailed)
        }
        for event in history:
            if isinstance(event, ev.ActivityScheduled):
                key = f"{row.execution_id}:{json.loads(bytes(event.input))[0][0]}"
                count, end = self.effects[key], ends.get(event.command)
                attempts = self.ledger.attempts[key]
                expect(len(attempts) == len(set(attempts)), f"{key}: an attempt began twice: {attempts}")
                most = event.options["retry"]["max_attempts"]
                expect(most is None or max(attempts, default=0) <= most, f"{key}: {attempts}, but {most} are allowed")
                if "apply" not in event.name:
                    expect(attempts or not isinstance(end, ev.ActivityCompleted), f"{key} completed, but never began")
                elif end is None:
                    expect(count <= 1, f"{key} was applied {count} times")
                else:
                    wanted = int(isinstance(end, ev.ActivityCompleted))
                    expect(count == wanted, f"{key} was applied {count} times, its outcome is {end.type}")

    # Between executions

    def _check_chain(self, chain: list[WorkflowInstance]) -> None:
        """One execution follows where the last event says so, and no other."""
        for row, following in zip(chain, [*chain[1:], None], strict=True):
            match self.histories[row.pk][-1]:
                case ev.InstanceContinuedAsNew() as end:
                    execution_id = end.execution_id
                case ev.InstanceFailed() as end:
                    execution_id = end.next_execution_id
                case _:
                    execution_id = ""
            found = "" if following is None else following.execution_id
            expect(found == execution_id, f"{row.execution_id} is followed by {found!r}, not by {execution_id!r}")

    def _check_children(self) -> None:
        """A command has one child, and what its parent was told is how the child ended."""
        firsts = [chain[0] for chain in self.chains.values() if chain[0].chain_id is None]
        children = {}
        for row in firsts:
            if row.parent_id is not None:
                key = (row.parent_id, row.parent_command)
                expect(key not in children, f"command {key} has two children")
                children[key] = row
                parent = self.instances[row.parent_id]
                self.journal.check_child(parent, self.chains[row.pk], self.histories[parent.pk])
        for pk, history in self.histories.items():
            outcomes = {e.command: e for e in history if isinstance(e, ev.ChildCompleted | ev.ChildFailed)}
            known = {e.command for e in history if isinstance(e, ev.ChildStarted)}
            for event in history:
                if isinstance(event, ev.ChildScheduled):
                    self._check_child(event, children.get((pk, event.command)), outcomes.get(event.command), known)

    def _check_child(
        self, event: ev.ChildScheduled, child: WorkflowInstance | None, outcome: Any, known: set[int]
    ) -> None:
        if child is None:
            refused = event.chosen_id and event.command not in known and not isinstance(outcome, ev.ChildCompleted)
            unwanted = event.options.parent_close != "abandon"  # decided in the step that closed its parent
            expect(refused or (outcome is None and unwanted), f"{event.instance_id} is missing")
        elif outcome is not None:
            last = self.chains[child.chain][-1]
            completed = last.status == InstanceStatus.COMPLETED
            expect(
                completed is isinstance(outcome, ev.ChildCompleted),
                f"{event.instance_id} is {last.status}, its parent was told {outcome.type}",
            )

    # Messages

    def _check_signals(self) -> None:
        """Each signal that was committed is read once, or is kept undelivered; those of one sender in order."""
        counts: Counter[str] = Counter(_value(event) for event in self.undelivered)
        latest: dict[tuple[int, str], int] = {}
        self.moved = {sent.value for sent in self.ledger.signals if sent.with_start}  # perhaps, to a younger instance
        for chain in self.chains.values():
            for row in chain:
                for value in self._signals_of(row):
                    counts[value] += 1
                for value in self._messages_of(row):
                    self._check_order(chain[0], value, latest)
        doubled = {value: count for value, count in counts.items() if count > 1}
        expect(not doubled, f"signals that arrived more than once: {doubled}")
        if not self.ledger.has_removed:
            lost = [sent for sent in self.ledger.signals if sent.value not in counts and not self._went_with(sent)]
            expect(not lost, f"signals that are lost: {lost}")
            told = {_value(event) for event in self._delivered()}
            expect(told <= set(counts), f"messages of workflows that are lost: {told - set(counts)}")

    def _signals_of(self, row: WorkflowInstance) -> Iterator[str]:
        for event in self.histories[row.pk]:
            yield from self._values_of(row, event)

    def _values_of(self, row: WorkflowInstance, event: Event) -> Iterator[str]:
        if isinstance(event, ev.SignalReceived):
            yield _value(event)
        elif isinstance(event, ev.InstanceStarted) and row.chain_id is None:
            yield from map(_value, event.signals)  # with which it was started

    def _messages_of(self, row: WorkflowInstance) -> Iterator[str]:
        """Yield what signals and updates say, in the order of the history."""
        for event in self.histories[row.pk]:
            if isinstance(event, ev.UpdateRequested):
                yield json.loads(bytes(event.input))[0][0]
            elif isinstance(event, ev.InstanceStarted | ev.SignalReceived):
                yield from self._values_of(row, event)

    def _check_order(self, first: WorkflowInstance, value: str, latest: dict[tuple[int, str], int]) -> None:
        sender, _, number = value.rpartition(":")
        if sender and value not in self.moved:
            before = latest.get((first.pk, sender), 0)
            expect(before < int(number), f"{first.instance_id} got signal {number} of {sender} after {before}")
            latest[first.pk, sender] = int(number)

    def _went_with(self, sent: Sent) -> bool:
        """Tell whether a signal was for an instance that it started, and that was terminated before it began."""
        return sent.with_start and any(
            row.instance_id == sent.instance_id and isinstance(self.histories[row.pk][0], ev.InstanceTerminated)
            for row in self.instances.values()
        )

    def _delivered(self) -> Iterator[ev.SignalSent]:
        for history in self.histories.values():
            delivered = {event.command for event in history if isinstance(event, ev.MessageDelivered)}
            for event in history:
                if isinstance(event, ev.SignalSent) and event.command in delivered:
                    yield event

    def _check_updates(self) -> None:
        """Every update is answered, as the history says."""
        answers = {
            event.update_id: event
            for history in self.histories.values()
            for event in history
            if isinstance(event, ev.UpdateCompleted | ev.UpdateFailed)
        }
        for row in WorkflowUpdate.objects.all():
            expect(WorkflowUpdate.Status(row.status).is_answered, f"update {row.update_id} is {row.status} at rest")
            answer = answers.get(row.update_id)
            if answer is not None:
                completed = isinstance(answer, ev.UpdateCompleted)
                expect(
                    completed is (row.status == WorkflowUpdate.Status.COMPLETED),
                    f"update {row.update_id} is {row.status}, the history says {answer.type}",
                )
        requests = Counter(
            event.update_id
            for history in self.histories.values()
            for event in history
            if isinstance(event, ev.UpdateRequested)
        )
        expect(not requests or max(requests.values()) == 1, f"updates that were accepted twice: {requests}")

    def _check_starts(self) -> None:
        there = {row.execution_id for row in self.instances.values()}
        expect(set(self.ledger.started) <= there, f"starts that are lost: {set(self.ledger.started) - there}")


def _value(event: Any) -> str:
    value: str = json.loads(bytes(event.value))
    return value


@contextmanager
def _naming(row: WorkflowInstance) -> Iterator[None]:
    try:
        yield
    except (Violation, WorkflowsError) as error:
        raise Violation(f"execution {row.pk} ({row.execution_id}) of {row.instance_id}: {error}") from error

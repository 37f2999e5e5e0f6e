"""The application: senders that start, signal, cancel, terminate and remove, each one transaction after another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connections, transaction

from django_workflows import RetryPolicy, activity
from django_workflows.exceptions import WorkflowsError
from django_workflows.models import InboxEvent, WorkflowInstance, WorkflowUpdate
from django_workflows.store import messages, retention
from django_workflows.store.database import Database

from .plans import IDS, Plans
from .workflows import Plan, note, tokens
from .world import Actor, Crash, World

_INBOX = InboxEvent._meta.db_table


@dataclass
class Sent:
    """A signal that was committed, and what it may have started."""

    value: str
    instance_id: str
    with_start: bool


@dataclass
class Ledger:
    """What the application knows, and what the invariants hold against the tables."""

    signals: list[Sent] = field(default_factory=list)
    started: list[str] = field(default_factory=list)  # execution ids
    attempts: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # that began
    has_removed: bool = False
    latest: str = IDS[0]  # to whom somebody has sent something


class Sender(Actor):
    """Does one transaction after another; a long one ends before its next begins."""

    def __init__(self, world: World, number: int, plans: Plans, ledger: Ledger, *, removes: bool) -> None:
        super().__init__(f"sender {number}")
        self.world, self.plans, self.ledger = world, plans, ledger
        self._draw = world.random
        self._sent = 0
        self._latest = IDS[0]  # to whom it has sent something
        self._held: Callable[[], None] | None = None
        self._kinds: dict[Callable[[], None], float] = {
            self.start: 4, self.signal: 6, self.signal_with_start: 3, self.cancel: 0.6, self.terminate: 1.5,
            self.ask: 1.5, self.ask_with_start: 0.5, self.complete: 1.5, self.remove: 1.0 * removes,
        }  # fmt: skip
        self._lengthy = [self.signal, self.cancel, self.ask, self.signal_with_start, self.complete]
        self._kinds = {kind: weight * self._draw.choice((0.3, 1, 1, 3)) for kind, weight in self._kinds.items()}
        self.is_busy = False

    @property
    def is_holding(self) -> bool:
        return self._held is not None

    def act(self) -> None:
        """End the long transaction, or do a new one: commits may be lost, and nobody says so."""
        self.is_busy = True
        try:
            with self.world.acting(self):
                if self._held is not None:
                    if self._draw.random() < 0.4:
                        return  # it lasts
                    work, self._held = self._held, None
                    self._commit(work)
                    if self._draw.random() < 0.8:
                        self._commit(lambda: self._signal(self._latest))  # which must not overtake
                else:
                    self._begin()
        except Crash:
            self.is_dead = False  # another process of the application goes on in its place
        except DatabaseError as error:
            self.world.say(f"sees {error}")
        except WorkflowsError as error:
            self.world.say(f"sees {type(error).__name__}")
        finally:
            self.is_busy = False

    def _begin(self) -> None:
        work = self._draw.choices(list(self._kinds), list(self._kinds.values()))[0]
        if self._draw.random() < 0.15:
            self._commit(lambda: [self.signal(), self.signal()])
        elif work in self._lengthy and self._draw.random() < 0.4:
            self._hold(work)
        else:
            self._commit(work)

    def _commit(self, work: Callable[[], object]) -> None:
        try:
            with transaction.atomic():
                work()
        finally:
            self.world.on_landing.clear()  # what was rolled back

    def _hold(self, work: Callable[[], object]) -> None:
        """Do the work in a transaction that stays open: its rows have their ids, and are seen by nobody.

        SQLite has one transaction at a time, so this one is undone, and done again with the same rows at its end.
        """
        connection: Any = connections["default"]
        landed: list[Callable[[], None]] = []
        rows: list[Any] = []
        with transaction.atomic():
            highest = connection.raw(f"SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = '{_INBOX}'")[0][0]
            instances = WorkflowInstance.objects.count()
            asked = set(WorkflowUpdate.objects.values_list("pk", flat=True))
            try:
                work()
                if WorkflowInstance.objects.count() == instances:  # an insert of an open row would hold others up
                    rows = [*WorkflowUpdate.objects.exclude(pk__in=asked), *InboxEvent.objects.filter(id__gt=highest)]
                    landed = list(self.world.on_landing)
            finally:
                self.world.on_landing.clear()
                transaction.set_rollback(True)
        if rows:
            connection.reserve_ids(_INBOX, max(row.pk for row in rows if isinstance(row, InboxEvent)))
            self._held = lambda: self._insert(rows, landed)
            self.world.note("long transaction", f"holds {[row.pk for row in rows]}")

    def _insert(self, rows: list[Any], landed: list[Callable[[], None]]) -> None:
        self.world.on_landing.extend(landed)
        for row in rows:
            row.save(force_insert=True)
        self.world.say("ends its long transaction")

    # What a transaction does

    def start(self) -> None:
        options: dict[str, Any] = {"on_conflict": self._draw.choice(("raise", "use_existing", "terminate_existing"))}
        if self._draw.random() < 0.6:
            options["instance_id"] = self._draw.choice(IDS)
        if self._draw.random() < 0.3:
            options["retry"] = RetryPolicy(max_attempts=2, initial_interval=timedelta(seconds=0.5), jitter=0)
        before = WorkflowInstance.objects.count()
        handle = Plan.using(**options).start(self.plans.plan())
        if WorkflowInstance.objects.count() > before:
            execution = handle.describe().execution_id
            self._when_landed("start", handle.instance_id, lambda: self.ledger.started.append(execution))

    def signal(self) -> None:
        self._signal(self._target())

    def _signal(self, target: str) -> None:
        value, execution = self._value(), None
        if self._draw.random() < 0.1:
            execution = Plan.handle(target).describe().execution_id
        Plan.handle(target, execution).signal(note, value)
        if execution is None:  # else it may come too late, and is gone
            self._when_landed(
                "signal", f"{value} to {target}", lambda: self.ledger.signals.append(Sent(value, target, False))
            )

    def signal_with_start(self) -> None:
        target, value = self._draw.choice(IDS), self._value()
        Plan.using(instance_id=target).signal_with_start(note, value, self.plans.plan(1))
        self._when_landed(
            "signal with start", f"{value} to {target}", lambda: self.ledger.signals.append(Sent(value, target, True))
        )

    def cancel(self) -> None:
        target = self._target()
        Plan.handle(target).cancel("by a sender")
        self._when_landed("cancel request", target)

    def terminate(self) -> None:
        target = self._target()
        Plan.handle(target).terminate("by a sender")
        self._when_landed("termination", target)

    def ask(self) -> None:
        target, draw = self._target(), self._draw.random()
        # Bound to an execution it may come too late, and another release may know more names.
        execution = Plan.handle(target).describe().execution_id if draw < 0.3 else None
        if draw < 0.9:
            wait = self._draw.choice((0, 0.3, 2))
            Plan.handle(target, execution).start_update(Plan.ask, self._value(), wait)
        else:
            messages.update(Database(), target, None, f"{self._draw.getrandbits(128):032x}", "unknown", b"[]")
        self._when_landed("update" if draw < 0.9 else "update of an unknown name", target)

    def ask_with_start(self) -> None:
        target = self._draw.choice(IDS)
        request = Plan.ask.request(self._value(), self._draw.choice((0, 0.3, 2)))
        Plan.using(instance_id=target).update_with_start(request, self.plans.plan(1))
        self._when_landed("update with start", target)

    def complete(self) -> None:
        """Complete a deferred activity, perhaps once more, perhaps too late."""
        if tokens:
            activity.complete(self._draw.choice(tokens[-4:]), "by its token")
            self._when_landed("completion by token", "")

    def remove(self) -> None:
        target = self._target()
        retention.remove(Database(), target, None)

        def removed() -> None:
            self.ledger.has_removed = True

        self._when_landed("removal", target, removed)

    def _target(self) -> str:
        """Return the id of somebody who was, and is perhaps."""
        kind = self._draw.random()
        if kind < 0.3:  # with whom others speak
            self._latest = self.ledger.latest
        elif kind < 0.6:
            self._latest = self._draw.choice(IDS)
        else:
            found = list(WorkflowInstance.objects.order_by("-id").values_list("instance_id", flat=True)[:5])
            self._latest = self._draw.choice(found or list(IDS))
        self.ledger.latest = self._latest
        return self._latest

    def _value(self) -> str:
        self._sent += 1
        return f"{self.name}:{self._sent}"

    def _when_landed(self, fact: str, text: str, record: Callable[[], None] = lambda: None) -> None:
        actor = self

        def landed() -> None:
            with actor.world.acting(actor):
                actor.world.note(fact, text)
            record()

        self.world.on_landing.append(landed)

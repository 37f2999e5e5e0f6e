"""The simulated world: its time, who acts in it, and what goes wrong at the borders of transactions."""

from __future__ import annotations

import contextvars
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from django.db import DataError, OperationalError

EPOCH = 1_800_000_000.0  # when every simulation begins, in seconds since 1970
_TAG = re.compile(r'[":]t(\d+)"')  # of an activity, in its input and its result
_DEEPEST = 3  # actions that wait for others inside actions


class Crash(BaseException):
    """The process of whoever acts is gone."""


class Violation(BaseException):
    """Something that must never be was found; not for the code under test to catch."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a commit."""

    name: str
    landed: bool  # whether the transaction is committed all the same
    crash: bool


_FAULTS = [
    Fault("crash before a commit", landed=False, crash=True),
    Fault("crash after a commit", landed=True, crash=True),
    Fault("connection lost before a commit", landed=False, crash=False),
    Fault("ambiguous commit", landed=True, crash=False),
]


class Actor:
    """Somebody with a clock of its own: a simulated process."""

    def __init__(self, name: str, *, offset: float = 0.0, rate: float = 1.0) -> None:
        self.name, self.offset, self.rate = name, offset, rate
        self.is_dead = False
        self.frozen_until = 0.0
        self.fragility = 1.0  # how much more often it freezes than others

    def monotonic(self, now: float) -> float:
        return self.offset + now * self.rate

    def world_time(self, monotonic: float) -> float:
        return (monotonic - self.offset) / self.rate

    def begins(self) -> None:
        """Hear that a transaction begins."""

    def lands(self) -> None:
        """Hear that a transaction is about to be committed; may raise Violation."""


class World:
    """Holds what is shared, and draws everything from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed, self.random, self.now = seed, Random(seed), 0.0
        self.trace: list[str] = []
        self.facts: Counter[str] = Counter()
        self.errors: list[str] = []  # that were logged
        # Each seed has moods of its own: what is rare in all of them would never meet.
        draw = self.random
        self.fault_rate = draw.choice((0.0, 0.01, 0.03, 0.03, 0.1))
        self.faults = _FAULTS
        if draw.random() < 0.2:
            self.fault_rate, self.faults = 0.15, [_FAULTS[-1]]  # so many would leave no worker alive
        self.pause_rate = draw.choice((0.02, 0.06, 0.06, 0.2))
        self.freeze_rate = draw.choice((0.001, 0.004, 0.03))
        self.slow_rate = draw.choice((0.0, 0.0, 0.02, 0.1))
        self.lock_rate = draw.choice((0.0, 0.02, 0.1))
        refusing = draw.random() < 0.15
        self.refused = {number for number in range(500) if refusing and draw.random() < 0.1}
        self.is_hostile = True  # until the end, when everybody is to come to rest
        self.act: Callable[[], None] = lambda: None  # lets somebody who is free act
        self.on_landing: list[Callable[[], None]] = []
        self._actor: Actor | None = None
        self._depth = 0

    # Time and trace

    def monotonic(self) -> float:
        return self.now if self._actor is None else self._actor.monotonic(self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def note(self, fact: str, text: str = "") -> None:
        """Count a fact and write it to the trace."""
        self.facts[fact] += 1
        self.say(f"{fact} {text}".rstrip())

    def say(self, text: str) -> None:
        who = "" if self._actor is None else f"{self._actor.name}: "
        self.trace.append(f"{self.now:10.3f} {'  ' * self._depth}{who}{text}")

    # Acting

    @contextmanager
    def acting(self, actor: Actor | None) -> Iterator[None]:
        before, self._actor = self._actor, actor
        try:
            yield
        finally:
            self._actor = before

    def interleave(self, actions: int = 1, *, seconds: float = 0.0) -> None:
        """Let others act while whoever acts now stands still; `seconds` is how long at least."""
        actor, ends = self._actor, self.now + seconds
        if self._depth < _DEEPEST:
            self._depth += 1
            try:
                for _ in range(actions):
                    # Their code must not see the context of the code that waits.
                    with self.acting(None):
                        contextvars.Context().run(self.act)
            finally:
                self._depth -= 1
        self.now = max(self.now, ends)
        if actor is not None and actor.is_dead:
            raise Crash

    def stand_still(self, seconds: float, *, actions: int = 10) -> None:
        """Let time pass for whoever acts, with others acting meanwhile."""
        ends = self.now + seconds
        if self._depth < _DEEPEST:
            while self.now < ends and self.is_hostile:
                self.interleave()
                self.pass_time(seconds / actions)
        self.interleave(0)
        self.now = max(self.now, ends)

    def before_transaction(self) -> None:
        """Let others come first, kill or cut off whoever is about to begin."""
        actor = self._actor
        if actor is None:
            return
        if actor.is_dead:
            raise Crash
        if not self.is_hostile:
            return
        draw = self.random.random() * 2**self._depth  # else most of what happens would be pauses within pauses
        if draw < self.pause_rate:
            self.interleave(self.random.randint(1, 3))
        elif (draw := self.random.random()) < self.freeze_rate * actor.fragility:
            seconds = self.random.choice((1.0, 30.0, 60.0))
            self.note("frozen", f"for {seconds:g} s")
            actor.frozen_until = self.now + seconds  # with all of its threads
            self.stand_still(seconds, actions=30)
        elif draw > 1 - self.fault_rate / 10:
            self.note("connection lost")
            raise OperationalError("the connection was lost")

    def during_transaction(self) -> None:
        """End a transaction in the middle."""
        if self.is_hostile and self._actor is not None and self.random.random() < self.fault_rate / 30:
            error = self.random.choice(("the connection was lost", "deadlock", "lock timeout"))
            self.note("error within a transaction", error)
            raise OperationalError(error)

    def refuse_some(self, rows: Iterable[Iterable[Any]]) -> None:
        """Refuse rows for what they hold, as a database does that cannot store some character: always the same ones."""
        if self.is_hostile and self.refused:
            text = " ".join(value for row in rows for value in row if isinstance(value, str))
            if any(int(number) in self.refused for number in _TAG.findall(text)):
                self.note("data refused")
                raise DataError("refused at random")

    def transaction_begins(self) -> None:
        if self._actor is not None:
            self._actor.begins()

    def before_landing(self) -> None:
        if self._actor is not None:
            self._actor.lands()

    def transaction_landed(self) -> None:
        for tell in self.on_landing:
            tell()
        self.on_landing.clear()

    def fault_at_commit(self) -> Fault | None:
        actor = self._actor
        if actor is None or not self.is_hostile or self.random.random() >= self.fault_rate:
            return None
        return self.random.choice(self.faults)

    def strike(self, fault: Fault) -> None:
        self.note(fault.name)
        if fault.crash:
            assert self._actor is not None
            self._actor.is_dead = True
            raise Crash
        raise OperationalError(f"the reply was lost: {fault.name}")

    def is_locked_by_somebody(self) -> bool:
        locked = self.is_hostile and self._actor is not None and self.random.random() < self.lock_rate
        if locked:
            self.facts["rows locked by somebody"] += 1
        return locked

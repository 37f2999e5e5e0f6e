"""One run: draw a world from a seed, let everything go wrong, come to rest, and check what must be true."""

from __future__ import annotations

import gc
import logging
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from unittest.mock import patch

from django.db import connections
from django.test.utils import override_settings

from django_workflows.conf import get_settings
from django_workflows.models import InboxEvent, OpenInstance
from django_workflows.worker import finder
from django_workflows.worker import worker as worker_module

from . import invariants, workflows
from .application import Ledger, Sender
from .connection import SimulatedConnection
from .plans import Plans
from .workers import SimulatedPool, SimulatedWorker
from .world import Violation, World

_ACTIONS = 115  # before everybody is to come to rest
_MOST_WORKERS = 3
_LONGEST_REST = 400.0  # seconds of the world: leases and pauses between tries end long before
_SETTINGS = {
    "LEASE": timedelta(seconds=12), "POLL_INTERVAL_MIN": 0.05, "POLL_INTERVAL_MAX": 0.5, "CRASH_LIMIT": 10_000,
    "STEP_TIME_LIMIT": 3600.0, "PROPAGATORS": (),
}  # fmt: skip
_RETENTION = {"completed": timedelta(seconds=4), "failed": timedelta(seconds=30), "continued_as_new": timedelta(0)}
_OPEN = f"SELECT count(*) FROM {OpenInstance._meta.db_table}"
_UNREAD = f"SELECT count(*) FROM {InboxEvent._meta.db_table} WHERE queue IS NOT NULL"


@dataclass
class Run:
    """What became of a seed."""

    seed: int
    trace: list[str]
    facts: dict[str, int]
    violation: Violation | None

    def report(self) -> str:
        tail = "\n".join(self.trace)
        return f"{tail}\nseed {self.seed}: {self.violation}\nreplay it: python -m tests.simulation {self.seed}"


def run(seed: int) -> Run:
    """Run one seed from its beginning to its end."""
    world = World(seed)
    violation = None
    with _in(world):
        stage = Stage(world)
        try:
            stage.storm()
            stage.rest()
            invariants.check(world, stage.ledger)
        except Violation as found:
            violation = found
        except Exception as error:
            error.add_note(f"in the simulation of seed {seed}")
            raise
        finally:
            stage.leave()
    return Run(seed, world.trace, dict(world.facts), violation)


class Stage:
    """Everybody who acts in a world, and who is next."""

    def __init__(self, world: World) -> None:
        self.world, self.ledger = world, Ledger()
        draw = world.random
        plans, removes = Plans(draw), draw.random() < 0.2
        self.senders = [Sender(world, number, plans, self.ledger, removes=removes) for number in (1, 2, 3)]
        self.workers: list[SimulatedWorker] = []
        self._numbers = self._acted = 0
        self.ledger.has_removed = get_settings().retention is not None
        world.act = self.act
        workflows.during_activity.append(self._during_activity)
        for _ in range(draw.randint(1, 2)):
            self._add_worker()

    def storm(self) -> None:
        while self._acted < _ACTIONS:
            self.act()
        for sender in self.senders:
            while sender.is_holding:
                sender.act()

    def rest(self) -> None:
        """Let those who live finish everything, with nothing going wrong any more."""
        world = self.world
        world.is_hostile = False
        world.say("the storm is over")
        for worker in self.workers:
            worker.frozen_until = 0.0
        ends = world.now + _LONGEST_REST
        # A sweep may start what was left: a child that survives its parent, which was terminated while it was blocked.
        while self._step_to_rest() or self._alive()[0].sweep():
            if world.now > ends:
                raise Violation(f"does not come to rest: {invariants.what_is_left()}")
        world.say("at rest")

    def _step_to_rest(self) -> bool:
        connection: Any = connections["default"]
        busy = False
        for worker in self._alive():
            if worker.due() <= self.world.now:
                busy = worker.turn() or busy
            while not worker.is_dead and worker.may_run:
                worker.run_activity()
                busy = True
        if busy:
            self.world.pass_time(0.01)
            return True
        if not connection.raw(_OPEN)[0][0] and not connection.raw(_UNREAD)[0][0]:
            return False
        due = min(worker.due() for worker in self._alive())
        self.world.now = max(self.world.now + 0.5, due)
        return True

    def _alive(self) -> list[SimulatedWorker]:
        alive = [worker for worker in self.workers if not worker.is_dead]
        while not any(worker.does_all for worker in alive):
            alive.append(self._add_worker())
        return alive

    def leave(self) -> None:
        workflows.during_activity.clear()
        workflows.tokens.clear()
        for worker in self.workers:
            worker.vanish()

    # One action

    def act(self) -> None:
        """Let somebody who is free do something, at a time that has passed a little."""
        self._acted += 1
        self.world.pass_time(self._pause())
        draw = self.world.random.random()
        self.workers = [worker for worker in self.workers if not worker.is_dead or worker.is_on_stack]
        free = [worker for worker in self.workers if worker.may_turn]
        able = [worker for worker in self.workers if worker.may_run]
        senders = [sender for sender in self.senders if not sender.is_busy]
        if draw < 0.04:
            self._disturb()
        elif draw < 0.22 and senders:
            self.world.random.choice(senders).act()
        elif draw < 0.5 and able:
            self.world.random.choice(able).run_activity()
        elif free:
            worker = self.world.random.choice(free)
            if self.world.random.random() < 0.4:
                worker.worker.wake()
            worker.turn()

    def _disturb(self) -> None:
        draw, living = self.world.random, [worker for worker in self.workers if not worker.is_dead]
        kind = draw.choice(("worker", "worker", "crash", "freeze", "leave"))
        if kind == "worker" or not living:
            if len(living) < _MOST_WORKERS:
                self._add_worker()
            return
        worker = draw.choice(living)
        if kind == "crash":
            worker.crash()
        elif kind == "freeze":
            worker.frozen_until = self.world.now + draw.choice((3.0, 25.0, 60.0))
            self.world.note("freeze", f"of {worker.name}")
        elif not worker.is_leaving:
            worker.leave()

    def _pause(self) -> float:
        draw = self.world.random.random()
        if draw < 0.6:
            return self.world.random.uniform(0.0, 0.03)
        return self.world.random.uniform(0.05, 0.6) if draw < 0.96 else self.world.random.uniform(1.0, 8.0)

    def _add_worker(self) -> SimulatedWorker:
        self._numbers += 1
        worker = SimulatedWorker(self.world, self._numbers)
        self.workers.append(worker)
        return worker

    def _during_activity(self, key: str, attempt: int) -> None:
        self.world.note("activity" if attempt == 1 else "another attempt", f"{attempt} of {key}")
        self.ledger.attempts[key].append(attempt)
        if self.world.is_hostile and not connections["default"].in_atomic_block and self.world.random.random() < 0.3:
            self.world.interleave(self.world.random.randint(1, 4), seconds=self.world.random.choice((0.0, 0.5, 2.0)))


# The process as the simulation wants it


@contextmanager
def _in(world: World) -> Iterator[None]:
    """Have this process live in the world: its database, its clock, its luck."""
    connection, original = _simulated(), connections["default"]
    state, luck = random.getstate(), random.Random(world.seed)
    connections["default"] = connection
    try:
        connection.begin_anew(world)
        random.seed(world.seed)
        with (
            override_settings(DJANGO_WORKFLOWS=_settings(world.random)),
            patch.object(time, "monotonic", world.monotonic),
            patch.object(uuid, "uuid4", lambda: uuid.UUID(int=luck.getrandbits(128), version=4)),
            patch.object(worker_module, "ActivityPool", SimulatedPool),
            # Time passes in leaps: after a second each poll would be a look back.
            patch.object(finder, "_LOOK_BACK", max(finder._LOOK_BACK, world.random.choice((6.0, 40.0)))),
            _logs_in(world),
            _collected_by_hand(),
        ):
            yield
    finally:
        connections["default"] = original
        connection.world = None
        random.setstate(state)


def _settings(draw: random.Random) -> dict[str, Any]:
    return {**_SETTINGS, "RETENTION": _RETENTION if draw.random() < 0.1 else None}


@cache
def _simulated() -> SimulatedConnection:
    return SimulatedConnection()


class _Log(logging.Handler):
    """Writes what workers log to the trace; an error is none that the world has asked for."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._world.say(f"{record.levelname.lower()} {text}")
        if "stopped renewing its lease" in text:
            self._world.facts["dead lease taken over"] += 1
        if "slow at random" in text:
            self._world.facts["slow step"] += 1
        elif "refused at random" in text:
            self._world.facts["refused step"] += 1
        elif record.levelno >= logging.ERROR:
            self._world.errors.append(text)


@contextmanager
def _logs_in(world: World) -> Iterator[None]:
    logger, handler = logging.getLogger("django_workflows"), _Log(world)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def _collected_by_hand() -> Iterator[None]:
    """When garbage is collected decides when a lost task is noticed, so it must not depend on what ran before."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

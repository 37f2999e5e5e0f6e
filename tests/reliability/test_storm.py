"""All faults at once, drawn at random: workers killed and frozen, connections and commits cut off, servers restarted.

FAULT_SECONDS says for how long, FAULT_SEED which ones: `make storm` draws others each time.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from django.db import connection

from django_workflows.models import OpenInstance, WorkflowInstance
from tests.conformance.waiting import assert_tables_consistent, eventually
from tests.testapp.models import Effect

from .logs import said
from .processes import WorkerProcesses, worker_processes
from .proxy import At, Proxy, proxy
from .servers import Server, private_server
from .workflows import family, mixed

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="there is no server"),
]

SECONDS = float(os.environ.get("FAULT_SECONDS", "6"))
SEED = int(os.environ.get("FAULT_SEED", "1"))
WORKERS = 2
MOST_OPEN = 150  # instances: enough for the workers to be busy, few enough to end soon


class Storm:
    """Strikes at workers, connections and the server."""

    def __init__(self, seed: int, fleet: WorkerProcesses, line: Proxy, server: Server) -> None:
        self.dice = random.Random(seed)
        self.strikes: Counter[str] = Counter()
        self._fleet, self._line, self._server = fleet, line, server
        line.rule = self._at_commit

    def strike(self) -> None:
        """Let each kind of trouble happen once, in any order."""
        for trouble in self.dice.sample([self._kill, self._freeze, self._cut, self._restart], 4):
            trouble()
            self.strikes[trouble.__name__] += 1
            time.sleep(self.dice.random())  # some work is done between two strikes

    def subside(self) -> None:
        self._line.rule = lambda transaction: At.PASS

    def _at_commit(self, transaction: bytes) -> At:
        return self.dice.choices([At.PASS, At.CUT_BEFORE, At.CUT_AFTER], [98, 1, 1])[0]

    def _kill(self) -> None:
        self._fleet.kill_and_replace(self.dice.randrange(WORKERS))

    def _freeze(self) -> None:
        process = self.dice.choice(self._fleet.processes)
        process.send_signal(signal.SIGSTOP)
        time.sleep(self.dice.choice([0.2, 1, 4]))  # for less and for more than its lease
        process.send_signal(signal.SIGCONT)

    def _cut(self) -> None:
        self._line.close()
        self._line.open()

    def _restart(self) -> None:
        self._server.stop(self.dice.choice(list(self._server.stops)))
        self._server.start()


@pytest.mark.parametrize("seed", [SEED])
def test_storm_of_all_faults_loses_nothing_and_doubles_nothing(seed: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        private_server() as server,
        proxy() as line,
        worker_processes(WORKERS, lease=2.0, log=log, environment=line.environment) as fleet,
    ):
        storm = Storm(seed, fleet, line, server)
        ends, batches = time.monotonic() + SECONDS, 0
        while time.monotonic() < ends:
            if OpenInstance.objects.count() < MOST_OPEN:
                start_some(batches := batches + 1)
            storm.strike()
        storm.subside()
        eventually(lambda: not OpenInstance.objects.exists(), 120)
        fleet.stop()
        assert_all_is_done_once(batches)
    assert min(storm.strikes.values()) > 0
    assert said(log), "one line for each message"


def start_some(batch: int) -> None:
    family.start_many([(f"family {batch} {number}",) for number in range(3)])
    mixed.start_many([(f"mixed {batch} {number}", 8) for number in range(15)])


def assert_all_is_done_once(batches: int) -> None:
    ended = Counter(
        WorkflowInstance.objects.filter(name__in=["reliability.family", "reliability.mixed"]).values_list(
            "name", "status", "result"
        )
    )
    assert ended == {
        ("reliability.family", "completed", "25"): 3 * batches,
        ("reliability.mixed", "completed", "24"): 15 * batches,
    }
    assert set(Counter(Effect.objects.values_list("key", flat=True)).values()) == {1}
    assert_tables_consistent()

"""The connection cut during COMMIT: whether the server got it or not, nothing is lost and nothing happens twice."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from django.db import connection

from django_workflows.models import OpenInstance
from django_workflows.models import Worker as WorkerRow
from tests.conformance.waiting import assert_tables_consistent
from tests.testapp.models import Effect

from .logs import assert_outages_are_told, said
from .processes import worker_processes
from .proxy import At, proxy
from .workflows import mixed, single_attempts

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="there is no connection to cut"),
]

INSTANCES, STEPS = 12, 4
CUT = "closed the connection|Lost connection|gone away|[Cc]onnection"


def kind_of(transaction: bytes) -> str:
    if b"testapp_effect" in transaction:
        return "activity"
    return "turn" if b"historyevent" in transaction.lower() else "other"


class EveryThird:
    """Cuts every third COMMIT of each kind."""

    def __init__(self, way: At) -> None:
        self.seen: Counter[str] = Counter()
        self.cuts: Counter[str] = Counter()
        self._way = way

    def __call__(self, transaction: bytes) -> At:
        kind = kind_of(transaction)
        self.seen[kind] += 1
        if self.seen[kind] % 3:
            return At.PASS
        self.cuts[kind] += 1
        return self._way


@pytest.mark.parametrize("way", [At.CUT_BEFORE, At.CUT_AFTER], ids=lambda way: way.name.lower())
def test_commits_that_are_cut_off_lose_nothing_and_double_nothing(way: At, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with proxy() as line, worker_processes(1, lease=30, log=log, environment=line.environment) as fleet:
        rule = line.rule = EveryThird(way)
        handles = mixed.start_many([(f"w{number}", STEPS) for number in range(INSTANCES)])
        assert [handle.result(timeout=60) for handle in handles] == [8] * INSTANCES
        line.rule = lambda transaction: At.PASS
        assert [row.state for row in WorkerRow.objects.all()] == [WorkerRow.State.ALIVE], "it went on as it was"
        assert fleet.stop() == [0]
    assert rule.cuts["activity"] >= 2 and rule.cuts["turn"] >= 2, rule.cuts
    assert not OpenInstance.objects.exists()
    keys = list(Effect.objects.values_list("key", flat=True))
    assert len(keys) == len(set(keys)) == INSTANCES * STEPS // 2
    assert_tables_consistent()
    assert_outages_are_told(log, CUT, most=rule.cuts["turn"] + rule.cuts["other"])
    assert not said(log, "ERROR")


def test_only_attempt_has_succeeded_if_its_commit_was_stored_and_the_answer_lost(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with proxy() as line, worker_processes(1, lease=30, log=log, environment=line.environment) as fleet:
        rule = line.rule = EveryThird(At.CUT_AFTER)
        handles = single_attempts.start_many([(f"w{number}", 4) for number in range(5)])
        assert [handle.result(timeout=60) for handle in handles] == [4] * 5
        line.rule = lambda transaction: At.PASS
        assert fleet.stop() == [0]
    assert rule.cuts["activity"] >= 2
    assert Effect.objects.count() == 5 * 4
    assert_tables_consistent()


def test_server_that_commits_slowly_is_no_trouble(tmp_path: Path) -> None:
    def commit_slowly(transaction: bytes) -> At:
        time.sleep(0.2)
        return At.PASS

    log = tmp_path / "log"
    with proxy() as line, worker_processes(1, lease=2.0, log=log, environment=line.environment) as fleet:
        line.rule = commit_slowly
        handles = mixed.start_many([(f"w{number}", 2) for number in range(20)])
        assert [handle.result(timeout=60) for handle in handles] == [3] * 20
        assert fleet.stop() == [0]
    assert not said(log, "WARNING") and not said(log, "ERROR")
    assert WorkerRow.objects.count() == 1

"""Every history of every generated workflow replays: whole, event by event, and cut anywhere with the rest fed live.

GENERATED_CASES is how many are drawn; `make nightly` draws more.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from django_workflows.engine import events as ev

from .generated import runs
from .harness import Run, assert_replays

_COLLECT_EVERY = 50  # cases

CASES = int(os.environ.get("GENERATED_CASES", "1000"))


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Keep out what would differ between two live runs: when garbage is collected decides when a failure is found."""
    logging.disable(logging.WARNING)  # of the signals that do not fit their type
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


_finished = itertools.count(1)


def finish(ran: Run) -> None:
    """Let go of a run, and of the garbage of many now and then: between two runs it makes no difference."""
    ran.machine.dispose()
    if next(_finished) % _COLLECT_EVERY == 0:
        gc.collect()


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_every_history_replays(ran: Run) -> None:
    finish(ran)
    assert_replays(ran, most_cuts=12)


@settings(max_examples=CASES // 10, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_every_command_has_one_outcome_at_most_and_nothing_ends_that_is_not_open(ran: Run) -> None:
    scheduled: dict[int, ev.Event] = {}
    ended: set[int] = set()
    for event in ran.events:
        match event:
            case ev.ActivityScheduled() | ev.TimerStarted() | ev.ChildScheduled() | ev.MessageCommand():
                assert event.command not in scheduled
                scheduled[event.command] = event
            case ev.ChildStarted() | ev.ChildCancelRequested():
                assert event.command in scheduled.keys() - ended
            case ev.ActivityCancelled() | ev.TimerCancelled() | ev.ResultEvent():
                assert event.command in scheduled.keys() - ended
                ended.add(event.command)
    still_open = {event.command for event in ran.open()}
    finish(ran)
    assert still_open.isdisjoint(ended)
    others = {n for n, event in scheduled.items() if isinstance(event, ev.ChildScheduled | ev.MessageCommand)}
    # A child or a message that nobody awaits any more is not open to its sender, whether it has ended or not.
    assert scheduled.keys() - ended - still_open <= others
    closings = [event for event in ran.events if isinstance(event, ev.ClosingEvent)]
    assert closings == ([ran.closing] if ran.closing else [])


@settings(max_examples=CASES // 10, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_every_accepted_update_is_answered_once_before_its_instance_closes(ran: Run) -> None:
    asked = [event.update_id for event in ran.events if isinstance(event, ev.UpdateRequested)]
    answered = [event.update_id for event in ran.events if isinstance(event, ev.UpdateCompleted | ev.UpdateFailed)]
    finish(ran)
    assert len(set(answered)) == len(answered)
    assert set(answered) <= set(asked)
    assert ran.closing is None or sorted(answered) == sorted(asked)

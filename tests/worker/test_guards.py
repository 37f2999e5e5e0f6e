"""The watch that breaks off steps which compute too long."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from django_workflows import StepTimeLimitExceeded
from django_workflows.worker.guards import StepWatch

AFTER_A_HIT = """
import sys
from tests.worker.test_guards import compute_for_ever, watching
with watching() as watch:
    for _ in range(3):
        try:
            watch.call("step", compute_for_ever)
        except Exception as error:
            print(type(error).__name__)
sys.setprofile(lambda frame, event, argument: None)
def function():
    pass
for _ in range(1000):
    function()
print("profiled")
"""


class watching:
    def __enter__(self) -> StepWatch:
        self.watch = StepWatch(0.05)
        self.watch.start()
        return self.watch

    def __exit__(self, *error: object) -> None:
        self.watch.stop()


def compute_for_ever() -> None:
    while True:
        pass


def swallow_everything() -> str:
    ends = time.monotonic() + 0.3
    while time.monotonic() < ends:
        try:
            compute_for_ever()
        except BaseException:
            continue
    return "swallowed"


def test_a_step_that_computes_for_ever_is_broken_off_with_its_stack() -> None:
    with watching() as watch, pytest.raises(StepTimeLimitExceeded, match="compute_for_ever"):
        watch.call("a step", compute_for_ever)


def test_a_step_that_catches_the_error_is_broken_off_all_the_same() -> None:
    with watching() as watch, pytest.raises(StepTimeLimitExceeded):
        watch.call("a step", swallow_everything)


def test_no_error_arrives_after_the_call() -> None:
    with watching() as watch:
        for number in range(12):
            with pytest.raises(StepTimeLimitExceeded):
                watch.call("a step", swallow_everything if number % 6 == 0 else compute_for_ever)
            assert watch.call("a quick step", lambda: 17) == 17


def test_the_interpreter_is_left_as_it_was() -> None:
    """A request to look for an error that stays set hangs Python 3.11 in the next call of a profiled function."""
    done = subprocess.run(
        [sys.executable, "-c", AFTER_A_HIT], capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    assert done.stdout.split() == ["StepTimeLimitExceeded"] * 3 + ["profiled"]

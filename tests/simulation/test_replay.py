"""A seed is all that a run depends on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .simulation import run


def trace_of(seed: int, hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.simulation", str(seed)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_gives_the_same_trace_in_every_process(seed: int) -> None:
    trace = trace_of(seed, "1")
    assert len(trace.splitlines()) > 30
    assert trace == trace_of(seed, "2") == f"{run(seed).report()}\n"


def test_another_seed_gives_another_trace() -> None:
    assert run(1).trace != run(2).trace

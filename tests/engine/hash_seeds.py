"""What scenarios decide in other processes, in which texts hash otherwise and objects lie elsewhere in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from django_workflows.engine import events as ev

from .harness import Main, Run

ROOT = Path(__file__).resolve().parents[2]


def histories_under_hash_seeds(module: str) -> set[str]:
    """Return the different accounts that processes give of the workflows in the module's SCENARIOS: one, hopefully."""
    return {_histories_under(seed, module) for seed in ("0", "1", "12345")}


def _histories_under(seed: str, module: str) -> str:
    code = f"from tests.engine.hash_seeds import print_histories; print_histories({module!r})"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def print_histories(module: str) -> None:
    scenarios: Sequence[Main] = import_module(module).SCENARIOS
    for main in scenarios:
        padding = [object() for _ in range(os.getpid() % 97)]  # moves addresses about
        events = [ev.encode_event(event) for event in Run(main).finish().events]
        print(getattr(main, "__name__", main), len(padding) * 0, events)

"""Runs cases: each in its own process group and databases, within its time, whatever happens in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import databases
from .case import Case, Record
from .environment import describe
from .results import ROOT, Results, fingerprint

_LONGEST_EXCERPT = 2000


@dataclass
class Runner:
    """Measures what the results do not have yet."""

    results: Results
    again: bool = False  # measure what is there too
    ends: float = float("inf")  # monotonic time after which no case begins

    def run(self, cases: Sequence[Case]) -> int:
        """Measure cases one after the other; return how many could not be measured."""
        code, failed = fingerprint(), 0
        missing = {vendor: databases.why_unreachable(vendor) for vendor in databases.VENDORS}
        for number, case in enumerate(cases, start=1):
            place = f"[{number}/{len(cases)}] {case.label}"
            if missing[case.database]:
                print(f"{place}: skipped, {case.database} does not answer: {missing[case.database]}", flush=True)
            elif self.results.has(case, code) and not self.again:
                print(f"{place}: measured before", flush=True)
            elif time.monotonic() > self.ends:
                print(f"{place}: left for the next run, the time is up", flush=True)
            else:
                print(f"{place} ...", end=" ", flush=True)
                record = self._measure(case, code)
                self.results.append(record)
                failed += bool(record.error)
                print(f"{record.seconds:.0f} s{f': {record.error}' if record.error else ''}", flush=True)
        return failed

    def _measure(self, case: Case, code: str) -> Record:
        began = time.monotonic()
        figures, error = self._run_process(case)
        return Record(
            part=case.part, name=case.name, database=case.database, parameters=case.parameters, code=code,
            commit=_commit(), date=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - began, 1), environment=describe(case.database), figures=figures,
            error=error,
        )  # fmt: skip

    def _run_process(self, case: Case) -> tuple[dict[str, Any] | None, str]:
        prefix = f"workflows_benchmark_{os.getpid()}"
        log = self.results.path.parent / "logs" / f"{case.part}-{case.name.replace('/', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, log.open("w") as output:
            answer = Path(folder, "figures.json")
            command = [sys.executable, "-m", "benchmarks.measure", json.dumps(asdict(case)), str(answer)]
            process = subprocess.Popen(
                command, cwd=ROOT, env=databases.environment(case.database, prefix), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(timeout=case.timeout)
                if process.returncode == 0:
                    return json.loads(answer.read_text()), ""
                return None, f"{_last_line(log)} (see {log})"
            except subprocess.TimeoutExpired:
                return None, f"not done within {case.timeout:g} s (see {log})"
            finally:
                _kill_group(process)
                for vendor in databases.reachable():
                    databases.drop_all(vendor, prefix)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever the case has left running: workers, peers, their children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace")[-_LONGEST_EXCERPT:].splitlines() if line.strip()]
    return lines[-1] if lines else "ended without a word"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

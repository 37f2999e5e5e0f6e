"""The types of the public API, as mypy sees them in a project that uses it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = "tests/typing/sample.py"
EXPECTED = re.compile(r"# error: (?P<codes>[\w, -]+)$")
TOLD = re.compile(rf"^{SAMPLE}:(?P<line>\d+): error: .* +\[(?P<code>[\w-]+)\]$", re.MULTILINE)


def expected_errors() -> dict[int, set[str]]:
    lines = (ROOT / SAMPLE).read_text(encoding="utf-8").splitlines()
    matches = {number: EXPECTED.search(line) for number, line in enumerate(lines, start=1)}
    return {number: set(match["codes"].split(", ")) for number, match in matches.items() if match}


@pytest.fixture(scope="module")
def told() -> dict[int, str]:
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", SAMPLE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {int(match["line"]): match["code"] for match in TOLD.finditer(done.stdout)}


def test_right_calls_are_accepted(told: dict[int, str]) -> None:
    wrong = expected_errors()
    assert wrong
    assert {line: code for line, code in told.items() if line not in wrong} == {}


def test_wrong_calls_are_errors(told: dict[int, str]) -> None:
    assert {line: codes for line, codes in expected_errors().items() if told.get(line) not in codes} == {}

"""The types of the public API, as mypy sees them in a project that uses it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ("tests/typing/sample.py", "tests/typing/classes_sample.py")
EXPECTED = re.compile(r"# error: (?P<codes>[\w, -]+)$")
TOLD = re.compile(r"^(?P<path>\S+\.py):(?P<line>\d+): error: .* +\[(?P<code>[\w-]+)\]$", re.MULTILINE)


def expected_errors(sample: str) -> dict[int, set[str]]:
    lines = (ROOT / sample).read_text(encoding="utf-8").splitlines()
    matches = {number: EXPECTED.search(line) for number, line in enumerate(lines, start=1)}
    return {number: set(match["codes"].split(", ")) for number, match in matches.items() if match}


@pytest.fixture(scope="module")
def told() -> dict[str, dict[int, str]]:
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", *SAMPLES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[int, str]] = {sample: {} for sample in SAMPLES}
    for match in TOLD.finditer(done.stdout):
        found[match["path"]][int(match["line"])] = match["code"]
    return found


@pytest.mark.parametrize("sample", SAMPLES)
def test_right_calls_are_accepted(told: dict[str, dict[int, str]], sample: str) -> None:
    wrong = expected_errors(sample)
    assert wrong
    assert {line: code for line, code in told[sample].items() if line not in wrong} == {}


@pytest.mark.parametrize("sample", SAMPLES)
def test_wrong_calls_are_errors(told: dict[str, dict[int, str]], sample: str) -> None:
    assert {line: codes for line, codes in expected_errors(sample).items() if told[sample].get(line) not in codes} == {}

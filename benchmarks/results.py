"""The file of results: one JSON object a line, only ever appended to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from .case import Case, Record

ROOT = Path(__file__).resolve().parent.parent


def fingerprint() -> str:
    """Return a hash of the engine's source: results of other code do not count as measured."""
    digest = blake2b(digest_size=6)
    for path in sorted((ROOT / "django_workflows").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Results:
    """The records in a file, oldest first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = list(_read(path))

    def append(self, record: Record) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(record.to_json()) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)

    def has(self, case: Case, code: str) -> bool:
        """Tell whether this very case was measured with this very code."""
        wanted = (case.part, case.name, case.parameters, code)
        return any((r.part, r.name, r.parameters, r.code) == wanted for r in self.records if r.figures is not None)

    def latest(self, case: Case) -> Record | None:
        """Return the newest record with figures of a case, of whatever sizes; not one of other parameters."""
        for record in reversed(self.records):
            same = (record.part, record.name, set(record.parameters)) == (case.part, case.name, set(case.parameters))
            if same and record.figures is not None:
                return record
        return None


def _read(path: Path) -> Iterable[Record]:
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                yield Record(**json.loads(line))
            except (ValueError, TypeError):
                continue  # cut off in the middle of a write, or of an older form: not measured

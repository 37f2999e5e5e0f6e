"""What is measured, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One measurement of a part: on one database, with these sizes, within `timeout` seconds."""

    part: str
    name: str
    database: str  # sqlite, postgresql or mariadb
    timeout: float
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.part}/{self.name}"


@dataclass(frozen=True)
class Record:
    """A measured case: one line of the results."""

    part: str
    name: str
    database: str
    parameters: dict[str, Any]
    code: str  # fingerprint of the engine
    commit: str
    date: str
    seconds: float
    environment: dict[str, str]
    figures: dict[str, Any] | None = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

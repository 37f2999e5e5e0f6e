"""What worker processes say in their log."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

_LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) +(.*)")


def said(log: Path, level: str = "") -> list[str]:
    """Return the messages of a log, each of which must be one line: no traceback, nothing that is wrapped."""
    messages = []
    for line in log.read_text().splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None, f"expected one line for each message, found {line!r} in:\n{log.read_text()}"
        if level in ("", match[1]):
            messages.append(match[2])
    return messages


def assert_outages_are_told(log: Path, naming: str, *, most: int, workers: int = 1) -> None:
    """Check that trouble with the database is told in few lines: when it begins, with its reason, and when it ends.

    `most` is how often it may begin; no worker tells that twice in a second.
    """
    begins = [message for message in said(log, "WARNING") if "the database fails" in message]
    ends = [message for message in said(log, "INFO") if "the database answers again" in message]
    assert any(re.search(naming, message) for message in begins), log.read_text()
    assert 1 <= len(begins) <= most, log.read_text()
    assert len(ends) == len(begins), log.read_text()
    seconds = Counter(line[:8] for line in log.read_text().splitlines() if "the database fails" in line)
    assert max(seconds.values()) <= workers, log.read_text()

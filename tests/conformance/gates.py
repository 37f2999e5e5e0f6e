"""Letting activities wait for the test, and noting what they saw."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict

from django_workflows import activity

from .waiting import eventually

_opened: defaultdict[str, threading.Event] = defaultdict(threading.Event)
_notes: defaultdict[str, list[str]] = defaultdict(list)


def open_gate(key: str) -> None:
    _opened[key].set()


def wait_at_gate(key: str) -> None:
    """Hold a sync activity until the test opens the gate."""
    if not _opened[key].wait(timeout=30):
        raise AssertionError(f"nobody opened gate {key!r}")


async def await_gate(key: str) -> None:
    """Hold an async activity until the test opens the gate."""
    for _ in range(3000):
        if _opened[key].is_set():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"nobody opened gate {key!r}")


def wait_for_cancel() -> None:
    """Hold a sync activity until it is told that it is cancelled."""
    eventually(activity.is_cancelled, timeout=30)


def note(key: str, text: str) -> None:
    _notes[key].append(text)


def notes(key: str) -> list[str]:
    return list(_notes[key])


def wait_for_notes(key: str, count: int = 1, timeout: float = 10) -> list[str]:
    eventually(lambda: len(_notes[key]) >= count, timeout)
    return notes(key)

"""What takes hints from process to process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

# Waits up to so many seconds and returns what has arrived; raises when the connection is lost.
Receive = Callable[[float], list[str]]


class Carrier(Protocol):
    """Sends a hint to whoever listens. A hint is short text: the id of the worker that tells, or nothing."""

    def send(self, hint: str) -> None:
        """Send a hint; raises whatever goes wrong, and takes no longer than a second for it."""

    def listen(self) -> AbstractContextManager[Receive]:
        """Listen on a connection of its own for the length of the block; raises when hints would not arrive."""

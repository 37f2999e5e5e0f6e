"""Signals that have arrived and were not received, by name, and who waits for the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from .events import CarriedSignal


class SignalBuffers:
    """One queue per signal name. Nothing bounds it: a signal is never dropped."""

    def __init__(self, create_future: Callable[[], asyncio.Future[Any]]) -> None:
        self._create_future = create_future
        self._unread: dict[str, deque[Raw]] = {}
        self._waiters: dict[str, deque[asyncio.Future[Any]]] = {}

    def add(self, name: str, value: Raw) -> None:
        """Keep a signal and wake the first coroutine that waits for its name."""
        self._unread.setdefault(name, deque()).append(value)
        self._wake_one(name)

    def take(self, name: str) -> Raw | None:
        """Return the oldest unread signal of this name, None when there is none."""
        unread = self._unread.get(name)
        if not unread:
            return None
        value = unread.popleft()
        if not unread:
            del self._unread[name]
        return value

    def unread(self) -> list[CarriedSignal]:
        """Return what the next execution inherits."""
        return [CarriedSignal(name, value) for name, queue in self._unread.items() for value in queue]

    async def wait(self, name: str) -> None:
        """Wait until a signal of this name may be there to take."""
        waiter = self._create_future()
        self._waiters.setdefault(name, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # Woken and cancelled at once: the next waiter must get the signal that this one leaves behind.
            if waiter.done() and not waiter.cancelled() and name in self._unread:
                self._wake_one(name)
            raise
        finally:
            self._forget(name, waiter)

    def _wake_one(self, name: str) -> None:
        waiters = self._waiters.get(name)
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _forget(self, name: str, waiter: asyncio.Future[Any]) -> None:
        waiters = self._waiters.get(name)
        if waiters and waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(name, None)

"""Predicates that coroutines wait for; they are looked at whenever all coroutines wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .exceptions_in_futures import acceptable


class Conditions:
    """The waiters of `wait_condition`, in the order in which they began to wait."""

    def __init__(self, create_future: Callable[[], asyncio.Future[None]]) -> None:
        self._create_future = create_future
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []

    def wait_until(self, predicate: Callable[[], object]) -> asyncio.Future[None]:
        """Return a future that is done once the predicate holds."""
        future = self._create_future()
        self._waiting.append((predicate, future))
        return future

    def wake(self) -> bool:
        """Wake the waiters whose predicates hold, and those whose predicates raise; return whether there were any."""
        if not self._waiting:
            return False
        waiting, self._waiting = self._waiting, []
        woken = False
        for predicate, future in waiting:
            if future.done():
                continue
            try:
                holds = bool(predicate())
            except BaseException as error:
                future.set_exception(acceptable(error))
                woken = True
                continue
            if holds:
                future.set_result(None)
                woken = True
            else:
                self._waiting.append((predicate, future))
        return woken

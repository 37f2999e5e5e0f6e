"""Waiting for the first of several things.

A task looks at its cases in order and takes the first that is ready. If none is, it parks one selection on all of them
and waits. Whoever comes along later finds it there. A counterpart on a channel *chooses* a case, which binds both
sides at once; anything else *wakes* the selection, and its task looks at all cases again. A plain send or receive is a
selection with one case.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Case(ABC, Generic[T_co]):
    """One of the things that `select` waits for; `T_co` is the type of its result."""

    _outcome: Callable[[], T_co] | None = None  # returns or raises the result; None: never chosen

    def result(self) -> T_co:
        """Return or raise what the case was chosen with, the last time if it was chosen several times.

        Raises asyncio.InvalidStateError if it never was.
        """
        if self._outcome is None:
            raise asyncio.InvalidStateError(
                f"expected the case that select returned, found {type(self).__name__}, which was not chosen; "
                "compare with `is` before you ask for a result"
            )
        return self._outcome()

    @abstractmethod
    def _attempt(self) -> bool:
        """Do it and keep the outcome if that needs no waiting; return whether it did not."""

    @abstractmethod
    def _park(self, selection: Selection[Any]) -> Callable[[], object]:
        """Leave the selection where those find it who make this case ready; return what takes it away again."""

    def _confirm(self) -> bool:
        """Keep the outcome of a case that a counterpart chose, now that the task goes on; False: look at all again."""
        return self._attempt()

    def _renounce(self) -> None:
        """Undo the choice of a counterpart where that is possible: the task was cancelled before it went on."""


C = TypeVar("C", bound=Case[Any])


class Selection(Generic[C]):
    """One wait of one task, parked on all of its cases until it is chosen or woken."""

    def __init__(self) -> None:
        self.waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.chosen: C | None = None

    @property
    def is_waiting(self) -> bool:
        return not self.waker.done()

    def choose(self, case: C) -> None:
        """Decide for a case; only while it waits."""
        self.chosen = case
        self.waker.set_result(None)

    def wake(self, _: object = None) -> None:
        """Have the task look at its cases again."""
        if self.is_waiting:
            self.waker.set_result(None)


async def choose(cases: Sequence[C]) -> C:
    """Wait until one of the cases is ready, do it, and return it; nothing happens to the others."""
    while True:
        for case in cases:
            if case._attempt():
                return case
        chosen = await _wait(cases)
        if chosen is not None and chosen._confirm():
            return chosen


async def _wait(cases: Sequence[C]) -> C | None:
    """Wait and return the case that a counterpart chose, None to look at all of them again."""
    selection: Selection[C] = Selection()
    leave = [case._park(selection) for case in cases]
    try:
        await selection.waker
    except BaseException:
        if selection.chosen is not None:
            selection.chosen._renounce()
        raise
    finally:
        for leave_one in leave:
            leave_one()
    return selection.chosen

"""`select`: whichever of several things comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from django_workflows.engine.selection import Case, Selection, choose

T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C", bound=Case[Any])


class Await(Case[T_co]):
    """The case of a future that is done; its result is the future's, or raises what the future raised.

    A coroutine, such as the call of an activity, is made a task at once and starts whatever is chosen. The task goes on
    when another case is chosen: `future` is there to wait for it again or to cancel it.
    """

    def __init__(self, awaitable: Awaitable[T_co]) -> None:
        self.future: asyncio.Future[T_co] = asyncio.ensure_future(awaitable)

    def _attempt(self) -> bool:
        if not self.future.done():
            return False
        self._outcome = self.future.result
        return True

    def _park(self, selection: Selection[Any]) -> Callable[[], object]:
        self.future.add_done_callback(selection.wake)
        return partial(self.future.remove_done_callback, selection.wake)


class Default(Case[None]):
    """The case that is always ready: last in the order, it makes `select` never wait. Its result is None."""

    def _attempt(self) -> bool:
        self._outcome = lambda: None
        return True

    def _park(self, selection: Selection[Any]) -> Callable[[], object]:
        raise AssertionError("expected nobody to wait for what is always ready")


async def select(*cases: C) -> C:
    """Wait until one of the cases is ready, do it, and return that case.

    They are looked at in the order of the arguments, and the first that is ready wins. Nothing happens to the others:
    their values and signals stay where they are, what they would send is not sent, and their tasks go on.

    Example:
        answered = Receive(approval)
        overdue = Await(workflow.sleep(3600))
        if await select(answered, overdue) is answered:
            approved = answered.result()
    """
    _check(cases)
    return await choose(cases)


def _check(cases: Sequence[object]) -> None:
    if not cases:
        raise TypeError("select() expected at least one case, found none: it would wait for ever")
    for case in cases:
        if not isinstance(case, Case):
            if asyncio.iscoroutine(case):
                case.close()
            raise TypeError(f"select() expected Await(...), Receive(...), Send(...) or Default(), found {case!r}")

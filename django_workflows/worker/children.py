"""Carrying out the orders to start children with chosen ids, between turns and a little at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from django_workflows.store import children
from django_workflows.store.database import Database

from .budget import rest_after
from .held import Held, PendingOrder

_BUDGET = 0.02  # seconds before each turn: the instances of the turn wait so long
_PAUSE = 0.02  # before another try for an id that somebody holds, at least
_SHARE = 0.05  # of the time, for tries of one order


def start_children(database: Database, holders: Iterable[Held]) -> Iterator[tuple[Held, str]]:
    """Yield instances whose order was carried out, with the child's queue; where somebody holds its id, it is kept."""
    ends = time.monotonic() + _BUDGET
    for held in holders:
        for row, pending in list(held.orders.items()):
            now = time.monotonic()
            if now >= ends:
                return
            if pending.not_before <= now and _try(database, pending, now):
                del held.orders[row]
                yield held, pending.order.event.queue


def _try(database: Database, pending: PendingOrder, now: float) -> bool:
    done = children.carry_out(database, pending.order)
    if not done:
        ended = time.monotonic()
        pending.not_before = ended + rest_after(ended - now, share=_SHARE, shortest=_PAUSE)
    return done

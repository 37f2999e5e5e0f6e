"""Instances in a worker's memory: their machines, what waits for them, and the bounded cache that keeps them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

import msgspec

from django_workflows.engine.events import InputEvent
from django_workflows.engine.machine import Machine
from django_workflows.store.work import ChildOrder, ClaimedTask, InstanceStep, OpenChain


class Input(msgspec.Struct, frozen=True):
    """An input event on its way into a machine, and the row that brought it."""

    event: InputEvent
    inbox: int | None = None  # id of the inbox row
    task: ClaimedTask | None = None  # the activity task that this worker ran


@dataclass(eq=False)
class PendingOrder:
    """The start of a child that is yet to be carried out."""

    order: ChildOrder
    not_before: float = 0.0  # when to try again: somebody held its id


@dataclass(eq=False)
class Held:
    """One owned instance in memory."""

    chain: OpenChain
    machine: Machine | None  # None: it could not be built, and the instance waits to be blocked
    inputs: list[Input] = field(default_factory=list)
    stepped: list[Input] = field(default_factory=list)  # the inputs of the uncommitted step
    seen: set[int] = field(default_factory=set)  # inbox rows that are taken in and not yet deleted
    orders: dict[int, PendingOrder] = field(default_factory=dict)  # by inbox row
    uncommitted: InstanceStep | None = None  # stepped, but its rows were locked by somebody
    not_before: float = 0.0  # when to offer the uncommitted step again
    has_more: bool = (
        False  # its inbox was too long to be read at once: what follows is read when the inputs are used up
    )

    def offer_inbox(self, row_id: int, event: InputEvent) -> None:
        if row_id not in self.seen:
            self.seen.add(row_id)
            self.inputs.append(Input(event, inbox=row_id))

    @property
    def due(self) -> float:
        """The monotonic time of the next thing to do, where `is_idle` is false."""
        steps = [self.not_before] if self.inputs or self.uncommitted is not None else []
        return min([*steps, *(pending.not_before for pending in self.orders.values())], default=math.inf)

    def unread_results(self) -> list[Input]:
        """Return the results of this worker's own activities that no commit has consumed."""
        return [entry for entry in (*self.stepped, *self.inputs) if entry.task is not None]

    @property
    def is_idle(self) -> bool:
        return not self.inputs and not self.orders and self.uncommitted is None and not self.has_more


class StickyCache:
    """The held instances by chain, least recently used first; bounded by evicting idle ones."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._held: OrderedDict[int, Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def get(self, chain: int) -> Held | None:
        return self._held.get(chain)

    def add(self, held: Held) -> None:
        self._held[held.chain.chain] = held

    def touch(self, held: Held) -> None:
        self._held.move_to_end(held.chain.chain)

    def remove(self, held: Held) -> None:
        if self._held.get(held.chain.chain) is held:
            del self._held[held.chain.chain]

    def surplus(self, running: Set[int]) -> list[Held]:
        """Return the instances to evict: idle, and not of the chains whose activities run here; least used first."""
        excess = len(self._held) - self.size
        return [held for held in self if held.is_idle and held.chain.chain not in running][:excess]

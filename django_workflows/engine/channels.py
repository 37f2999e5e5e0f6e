"""Channels: values from task to task, first in first out, over a buffer or from hand to hand.

The rules:
- A value stays in the channel until its receiver runs. A receiver that is woken is *promised* a value: nobody else can
  take the last ones from under it. If it is cancelled before it runs, the promise passes on and the value stays.
- A sender's value enters the channel when there is room for it, or a receiver. The send is over then.
- While a receiver waits, no value is free and no sender waits; while a sender waits, there is no room.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar

from django_workflows.exceptions import ChannelClosed

from .selection import Case, Selection, choose

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(ABC, Generic[T_co]):
    """What values can be received from: a channel or a signal."""

    @abstractmethod
    def receive_nowait(self) -> T_co:
        """Return the next value; raises asyncio.QueueEmpty when there is none."""

    @abstractmethod
    def _channel(self) -> Channel[Any]:
        """Return the channel through which the values come."""

    async def receive(self) -> T_co:
        """Wait for the next value and return it; raises ChannelClosed when there will be none."""
        return (await choose([Receive(self)])).result()

    def __aiter__(self) -> Source[T_co]:
        return self

    async def __anext__(self) -> T_co:
        try:
            return await self.receive()
        except ChannelClosed:
            raise StopAsyncIteration from None


class Channel(Source[T]):
    """Carries values from task to task within one instance, in the order in which they were sent, each to one receiver.

    `capacity` values are kept for receivers to come. With 0, a send waits until a receiver is there, and a receive
    until a sender is. Senders and receivers that wait are served first come, first served. A channel lives in memory:
    it is rebuilt by replay, and ends with the execution. It also works outside of workflows, within one event loop.

    Example:
        pages = Channel[str](capacity=10)
        await pages.send("first")
        pages.close()
        async for page in pages: ...
    """

    def __init__(self, capacity: int = 0) -> None:
        if capacity < 0:
            raise ValueError(f"expected a capacity of 0 (unbuffered) or more, found {capacity}")
        self.capacity = capacity
        self._values: deque[T] = deque()
        self._promised = 0  # how many of the values are for receivers that were woken and have not run yet
        self._receivers: OrderedDict[tuple[Selection[Any], Receive[Any]], None] = OrderedDict()
        self._senders: OrderedDict[tuple[Selection[Any], Send], None] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        """Return how many values can be received without waiting for a sender."""
        return len(self._values) - self._promised

    @property
    def closed(self) -> bool:
        """Whether `close()` was called; values may still be there to receive."""
        return self._closed

    async def send(self, value: T) -> None:
        """Wait until a receiver or the buffer takes the value; raises ChannelClosed if the channel is closed.

        Cancelling it takes the value back, unless the channel has accepted it by then.
        """
        (await choose([Send(self, value)])).result()

    def send_nowait(self, value: T) -> None:
        """Send without waiting; raises asyncio.QueueFull where that is not possible, ChannelClosed if closed."""
        if self._closed:
            raise ChannelClosed("expected an open channel to send to, found one that was closed")
        if not self._promise() and len(self) >= self.capacity:
            raise asyncio.QueueFull
        self._values.append(value)

    def receive_nowait(self) -> T:
        """Return the next value; raises asyncio.QueueEmpty when there is none, ChannelClosed if none will come."""
        if len(self) <= self.capacity:  # the receiver is room for one more
            self._admit()
        if len(self) > 0:
            return self._values.popleft()
        if self._closed:
            raise ChannelClosed("expected a channel with a value to receive, found one that was closed and is drained")
        raise asyncio.QueueEmpty

    def close(self) -> None:
        """End the channel: what is in it can still be received, every other send and receive raises ChannelClosed.

        Senders that wait get it too, and their values are not sent. Closing again does nothing.
        """
        self._closed = True
        for selection, _ in [*self._receivers, *self._senders]:
            selection.wake()

    def _channel(self) -> Channel[T]:
        return self

    def _promise(self) -> bool:
        """Promise a value to the receiver that has waited longest; return whether there is one."""
        while self._receivers:
            (selection, case), _ = self._receivers.popitem(last=False)
            if selection.is_waiting:
                self._promised += 1
                selection.choose(case)
                return True
        return False

    def _admit(self) -> None:
        """Take the value of the sender that has waited longest."""
        while self._senders:
            (selection, case), _ = self._senders.popitem(last=False)
            if selection.is_waiting:
                self._values.append(case.value)
                selection.choose(case)
                return


class Receive(Case[T_co]):
    """The case of a value from a channel or a signal; its result is the value, or raises ChannelClosed."""

    def __init__(self, source: Source[T_co]) -> None:
        self.source = source

    def _attempt(self) -> bool:
        try:
            value = self.source.receive_nowait()
        except asyncio.QueueEmpty:
            return False
        except ChannelClosed as error:
            self._outcome = partial(_raise, error)
        else:
            self._outcome = lambda: value
        return True

    def _park(self, selection: Selection[Any]) -> Callable[[], object]:
        receivers = self.source._channel()._receivers
        receivers[selection, self] = None
        return partial(receivers.pop, (selection, self), None)

    def _confirm(self) -> bool:
        self.source._channel()._promised -= 1
        return self._attempt()

    def _renounce(self) -> None:
        channel = self.source._channel()
        channel._promised -= 1
        channel._promise()


class Send(Case[None]):
    """The case of a channel that takes a value; its result is None, or raises ChannelClosed."""

    def __init__(self, channel: Channel[T], value: T) -> None:
        self.channel: Channel[Any] = channel
        self.value: Any = value

    def _attempt(self) -> bool:
        try:
            self.channel.send_nowait(self.value)
        except asyncio.QueueFull:
            return False
        except ChannelClosed as error:
            self._outcome = partial(_raise, error)
        else:
            self._outcome = _nothing
        return True

    def _park(self, selection: Selection[Any]) -> Callable[[], object]:
        senders = self.channel._senders
        senders[selection, self] = None
        return partial(senders.pop, (selection, self), None)

    def _confirm(self) -> bool:
        self._outcome = _nothing
        return True


def _raise(error: Exception) -> NoReturn:
    raise error


def _nothing() -> None:
    return None

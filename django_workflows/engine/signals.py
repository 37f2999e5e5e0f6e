"""Signals that have arrived and were not received, by name: channels that are filled from outside."""

from __future__ import annotations

import sys

from msgspec import Raw

from .channels import Channel
from .events import CarriedSignal


class SignalChannel(Channel[Raw]):
    """Carries the encoded signals of one name. Nothing bounds it: a signal is never dropped."""

    def __init__(self) -> None:
        super().__init__(sys.maxsize)

    def unread(self) -> list[Raw]:
        """Return what nobody has received."""
        return list(self._values)

    @property
    def is_idle(self) -> bool:
        return not self._values and not self._receivers


class SignalBuffers:
    """The channels of an instance's signals."""

    def __init__(self) -> None:
        self._channels: dict[str, SignalChannel] = {}
        self._most_channels = 100

    def add(self, name: str, value: Raw) -> None:
        """Keep a signal, or hand it to the first coroutine that waits for its name."""
        self.channel(name).send_nowait(value)

    def channel(self, name: str) -> SignalChannel:
        """Return the channel of a name; ask again after each await, since idle ones are forgotten."""
        if name not in self._channels:
            if len(self._channels) >= self._most_channels:
                self._channels = {known: channel for known, channel in self._channels.items() if not channel.is_idle}
                self._most_channels = 2 * len(self._channels) + 100
            self._channels[name] = SignalChannel()
        return self._channels[name]

    def unread(self) -> list[CarriedSignal]:
        """Return what the next execution inherits."""
        return [CarriedSignal(name, value) for name, channel in self._channels.items() for value in channel.unread()]

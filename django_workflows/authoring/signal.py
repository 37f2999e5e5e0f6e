"""Signals: typed messages into a running instance."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from msgspec import Raw

from django_workflows.engine.channels import Channel, Source
from django_workflows.engine.context import require_machine
from django_workflows.exceptions import PayloadError
from django_workflows.payloads import decode

from .logger import logger

T = TypeVar("T")


class Signal(Source[T]):
    """A named message of one type, received in the order it was sent, each once.

    Signals that arrive before the workflow listens are kept, and survive continue-as-new. One that cannot be decoded to
    the type is left in the history, logged once and skipped.

    Example:
        approval = Signal("approval", bool)
        approved = await approval.receive()
    """

    @overload
    def __init__(self, name: str, type: type[T]) -> None: ...

    @overload
    def __init__(self: Signal[Any], name: str, type: Any = ...) -> None: ...

    def __init__(self, name: str, type: Any = Any) -> None:
        self.name = name
        self.type = type

    async def receive(self) -> T:
        """Wait for the next signal of this name and return its value."""
        require_machine(f"Signal({self.name!r}).receive()")
        return await super().receive()

    def receive_nowait(self) -> T:
        """Return the next signal's value; raises asyncio.QueueEmpty when none has arrived."""
        machine = require_machine(f"Signal({self.name!r}).receive_nowait()")
        machine.refuse_where_restricted("a signal")
        channel = machine.signals.channel(self.name)
        while True:
            payload = channel.receive_nowait()
            try:
                value: T = decode(payload, self.type, what=f"signal {self.name!r}")
            except PayloadError as error:
                logger.warning("signal %r skipped, it stays in the history: %s", self.name, error)
            else:
                return value

    def _channel(self) -> Channel[Raw]:
        return require_machine(f"Receive(Signal({self.name!r}))").signals.channel(self.name)

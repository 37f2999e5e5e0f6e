"""Signals: typed messages into a running instance."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from msgspec import Raw

from django_workflows.engine.channels import Channel, Source
from django_workflows.engine.context import require_machine
from django_workflows.engine.machine import Machine
from django_workflows.exceptions import NotAllowedInWorkflowError, PayloadError
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
        channel = self._channel_of(require_machine(f"Signal({self.name!r}).receive_nowait()"))
        while True:
            payload = channel.receive_nowait()
            try:
                value: T = decode(payload, self.type, what=f"signal {self.name!r}")
            except PayloadError as error:
                logger.warning("signal %r skipped, it stays in the history: %s", self.name, error)
            else:
                return value

    def _channel(self) -> Channel[Raw]:
        return self._channel_of(require_machine(f"Receive(Signal({self.name!r}))"))

    def _channel_of(self, machine: Machine) -> Channel[Raw]:
        machine.refuse_where_restricted("a signal")
        if machine.messages.handles(self.name):
            raise NotAllowedInWorkflowError(
                f"expected a signal without a handler, found {self.name!r}: {machine.info.workflow} handles it, so "
                "there is never one to receive"
            )
        return machine.signals.channel(self.name)

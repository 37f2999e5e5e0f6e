"""Child workflows and messages to other instances, as workflow code sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, TypeVar, overload

import msgspec

from django_workflows import payloads
from django_workflows.engine.commands import Child
from django_workflows.engine.context import require_machine
from django_workflows.engine.events import CancelSent, SignalSent
from django_workflows.engine.machine import Machine
from django_workflows.keys import key_of

from .signal import Signal

R = TypeVar("R")
T = TypeVar("T")


class _Signals:
    """Sends signals from workflow code: recorded, and sent with the step."""

    @overload
    async def signal(self, signal: Signal[T], value: T) -> None: ...

    @overload
    async def signal(self, signal: Signal[None]) -> None: ...

    @overload
    async def signal(self, signal: str, value: Any = None) -> None: ...

    async def signal(self, signal: Signal[Any] | str, value: Any = None) -> None:
        """Send a signal and wait until it is stored; raises InstanceNotFound, InstanceNotRunning, PayloadError."""
        await self._send(signal if isinstance(signal, str) else signal.name, value)

    async def _send(self, name: str, value: Any) -> None:
        raise NotImplementedError


class ExternalHandle(_Signals):
    """Another instance, as workflow code addresses it: messages are recorded and sent with the step.

    Example:
        await workflow.handle("warehouse-3").signal(restock, "book")
    """

    def __init__(self, machine: Machine, instance_id: str, execution_id: str | None = None) -> None:
        key_of(instance_id)
        self._machine = machine
        self.instance_id = instance_id
        self.execution_id = execution_id

    async def _send(self, name: str, value: Any) -> None:
        await self._machine.decide_and_wait(
            SignalSent(
                command=self._machine.next_command(), instance_id=self.instance_id, execution_id=self.execution_id,
                name=name, value=_encode(self._machine, name, value),
            )
        )  # fmt: skip

    async def cancel(self, reason: str = "") -> None:
        """Ask the instance to cancel; raises InstanceNotFound, InstanceNotRunning. Does not wait until it has."""
        payloads.encode(reason, what="the reason of a cancel request", limit=self._machine.payload_limit)
        await self._machine.decide_and_wait(
            CancelSent(
                command=self._machine.next_command(), instance_id=self.instance_id, execution_id=self.execution_id,
                reason=reason,
            )
        )  # fmt: skip


class ChildHandle(_Signals, Generic[R]):
    """A child that was started: await it for its result, or signal and cancel it meanwhile.

    Example:
        child = ship.using(instance_id=f"ship-{order_id}").start_child(order_id)
        await child.signal(address_changed, address)
        tracking = await child
    """

    def __init__(self, machine: Machine, child: Child, task: asyncio.Task[R]) -> None:
        self._machine = machine
        self._child = child
        self.instance_id = child.event.instance_id
        self.execution_id = child.event.execution_id
        self.task = task

    def __await__(self) -> Generator[Any, None, R]:
        return self.task.__await__()

    def done(self) -> bool:
        """Tell whether the outcome is there, or nobody waits for it any more."""
        return self.task.done()

    def cancel(self) -> None:
        """Ask the child to cancel, whatever its `parent_close` is; awaiting it then raises CancelledError."""
        self._machine.cancel_child(self._child)

    async def started(self) -> None:
        """Wait until the child exists; raises InstanceAlreadyExists if its id was taken."""
        await asyncio.shield(self._child.known)
        if not self._child.exists:
            await self.task  # which knows why

    async def _send(self, name: str, value: Any) -> None:
        """Send the child a signal, once it exists; raises what `started` raises too."""
        await self.started()
        await self._machine.decide_and_wait(
            SignalSent(
                command=self._machine.next_command(), instance_id=self.instance_id, child=self._child.event.command,
                name=name, value=_encode(self._machine, name, value),
            )
        )  # fmt: skip


def _encode(machine: Machine, name: str, value: Any) -> msgspec.Raw:
    return msgspec.Raw(payloads.encode(value, what=f"signal {name!r}", limit=machine.payload_limit))


class Messages:
    """What workflow code uses to reach other instances."""

    def handle(self, instance_id: str, execution_id: str | None = None) -> ExternalHandle:
        """Return a handle of another instance, or of this one, for workflow code; looks nothing up."""
        return ExternalHandle(require_machine("workflow.handle()"), instance_id, execution_id)

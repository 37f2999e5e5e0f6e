"""The workflow object: start it from the application, await it as a child inside another workflow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from django_workflows.engine.commands import Child, CommandFuture, calling_location
from django_workflows.engine.context import current_machine
from django_workflows.engine.events import ChildScheduled
from django_workflows.engine.machine import Machine
from django_workflows.exceptions import NotAllowedInWorkflowError, NotInWorkflowError
from django_workflows.payloads import Raw
from django_workflows.registry import WorkflowDefinition

from .children import ChildHandle
from .handlers import UpdateRequest
from .runtime import get_client
from .signal import Signal
from .start_options import StartOptions, WorkflowCallOptions

if TYPE_CHECKING:
    from django_workflows.client import UpdateHandle, WorkflowHandle

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Workflow(Generic[P, R]):
    """A registered workflow.

    Example:
        handle = fulfil_order.using(instance_id="order-17").start(17, cents=990)
    """

    def __init__(self, definition: WorkflowDefinition, options: StartOptions | None = None) -> None:
        self.definition = definition
        self.options = options or StartOptions(queue=definition.queue, retry=definition.retry)
        self.__doc__ = definition.function.__doc__
        self.__name__ = definition.function.__name__

    @property
    def name(self) -> str:
        """The registered name."""
        return self.definition.name

    def using(self, **options: Unpack[WorkflowCallOptions]) -> Workflow[P, R]:
        """Return a copy with other options.

        `instance_id`: the caller's id, at most 255 characters. `queue`: where its steps run. `on_conflict`: what to do
        when the id is open: "raise", "use_existing" or "terminate_existing". `subject`: a saved model instance the
        workflow is about. `attributes`: a JSON object readable with the ORM. `retry`: the policy by which a failed
        execution is followed by another one. `parent_close`: of a child, what becomes of it when its parent closes or
        gives up waiting for it: "cancel", "terminate" or "abandon". Raises TypeError for any other name.
        """
        return Workflow(self.definition, replace(self.options, **options))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Insert a new instance in the caller's transaction and return its handle.

        Raises TypeError for wrong arguments, PayloadError for arguments that cannot be stored, InstanceAlreadyExists.
        Runs no workflow code: a worker does once the transaction is committed.
        """
        handle: WorkflowHandle[R] = get_client().start(self, args, kwargs)
        return handle

    async def astart(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Start from async code; see `start`."""
        from asgiref.sync import sync_to_async

        handle: WorkflowHandle[R] = await sync_to_async(self.start)(*args, **kwargs)
        return handle

    def signal_with_start(
        self, signal: Signal[T] | str, value: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]:
        """Signal the open instance of the given `instance_id`, or start it with the signal waiting for it.

        `signal` is a Signal or a name.
        In the caller's transaction, and only inserts. An open instance that closes without the signal is followed by a
        new one that gets it. Raises what `start` does, PayloadError, and ValueError without an `instance_id`.

        Example: `invoice.using(instance_id="invoice-ada").signal_with_start(line, "book", "ada")`
        """
        handle: WorkflowHandle[R] = get_client().signal_with_start(self, signal, value, args, kwargs)
        return handle

    async def asignal_with_start(
        self, signal: Signal[T] | str, value: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]:
        """Signal with start from async code; see `signal_with_start`."""
        from asgiref.sync import sync_to_async

        handle: WorkflowHandle[R] = await sync_to_async(
            lambda: self.signal_with_start(signal, value, *args, **kwargs)
        )()
        return handle

    def update_with_start(self, request: UpdateRequest[T], /, *args: P.args, **kwargs: P.kwargs) -> UpdateHandle[T]:
        """Ask the open instance of the given `instance_id` for an update, starting it first if there is none.

        In the caller's transaction. An open instance may close without having read it: the answer is UpdateNotAnswered
        then. Raises what `start` raises, ValueError without an `instance_id`.

        Example: `Cart.using(instance_id="cart-17").update_with_start(Cart.add.request("book"), customer.pk)`
        """
        handle: UpdateHandle[T] = get_client().update_with_start(self, request, args, kwargs)
        return handle

    async def aupdate_with_start(
        self, request: UpdateRequest[T], /, *args: P.args, **kwargs: P.kwargs
    ) -> UpdateHandle[T]:
        """Update with start from async code; see `update_with_start`."""
        from asgiref.sync import sync_to_async

        handle: UpdateHandle[T] = await sync_to_async(lambda: self.update_with_start(request, *args, **kwargs))()
        return handle

    def start_many(
        self, arguments: Iterable[tuple[Any, ...]], instance_ids: Iterable[str] | None = None
    ) -> list[WorkflowHandle[R]]:
        """Start one instance per tuple of positional arguments, in a few statements, all or none.

        Raises what `start` raises; `on_conflict` other than "raise" is refused.
        """
        handles: list[WorkflowHandle[R]] = get_client().start_many(self, arguments, instance_ids)
        return handles

    def handle(self, instance_id: str, execution_id: str | None = None) -> WorkflowHandle[R]:
        """Return a handle of an instance without looking whether it exists.

        It follows the newest execution unless `execution_id` binds it to one.
        """
        handle: WorkflowHandle[R] = get_client().handle(instance_id, execution_id, self)
        return handle

    @property
    def call(self) -> Callable[P, Coroutine[Any, Any, R]]:
        """The bare async function, without any durability."""

        def call(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
            _, run = self.definition.bind(args, kwargs)
            coroutine: Coroutine[Any, Any, R] = run(*args, **kwargs)
            return coroutine

        return call

    # As a child

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Run as a child of the calling workflow; outside a workflow raises NotInWorkflowError."""
        machine, payload = self._prepare_child(args, kwargs)
        coroutine = self._run_as_child(machine, payload, calling_location())
        coroutine.__qualname__ = self.name  # type: ignore[attr-defined]  # what Python's "never awaited" warning shows
        return coroutine

    def start_child(self, *args: P.args, **kwargs: P.kwargs) -> ChildHandle[R]:
        """Start a child of the calling workflow and return its handle, which can be awaited, signalled and cancelled.

        Raises what calling the workflow raises; that a chosen id is taken is raised where the child is awaited.
        """
        machine, payload = self._prepare_child(args, kwargs)
        child, outcome = self._schedule_child(machine, payload, calling_location())
        task: asyncio.Task[R] = machine.loop.create_task(
            self._result_of(outcome), name=f"child {child.event.instance_id}"
        )
        # A task that is cancelled before it runs has not come to wait for the outcome, and cancels nothing itself.
        task.add_done_callback(lambda task: task.cancelled() and outcome.cancel())
        return ChildHandle(machine, child, task)

    def _prepare_child(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Machine, bytes]:
        machine = current_machine()
        if machine is None:
            raise NotInWorkflowError(
                f"{self.name} was called outside a workflow: use .start(...) to start an instance of it, "
                ".call(...) to run the bare function"
            )
        if self.options.on_conflict != "raise":
            raise NotAllowedInWorkflowError(
                f"expected no on_conflict in .using() of the child workflow {self.name}, found "
                f"{self.options.on_conflict!r}; where the id is open, the child fails with InstanceAlreadyExists"
            )
        return machine, self.definition.signature.encode_arguments(args, kwargs, machine.payload_limit)

    async def _run_as_child(self, machine: Machine, payload: bytes, location: str) -> R:
        _, future = self._schedule_child(machine, payload, location)
        return await self._result_of(future)

    async def _result_of(self, future: CommandFuture) -> R:
        value: R = self.definition.signature.decode_result(await future)
        return value

    def _schedule_child(self, machine: Machine, payload: bytes, location: str) -> tuple[Child, CommandFuture]:
        options = self.options
        number, execution_id = machine.next_command(), machine.uuid_hex()
        event = ChildScheduled(
            command=number,
            name=self.name,
            input=Raw(payload),
            queue=options.queue or machine.info.queue,
            execution_id=execution_id,
            instance_id=options.instance_id or execution_id,
            version=self.definition.version,
            chosen_id=options.instance_id is not None,
            options=options.for_instance(),
            attributes=options.stored_attributes(machine.payload_limit),
            subject=options.subject_reference,
        )
        return machine.start_child(event, location)

"""The workflow object: start it from the application, await it as a child inside another workflow."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar

from django_workflows.engine.commands import calling_location
from django_workflows.engine.context import current_machine
from django_workflows.engine.events import ChildScheduled
from django_workflows.engine.machine import Machine
from django_workflows.exceptions import NotAllowedInWorkflowError, NotInWorkflowError
from django_workflows.payloads import Raw
from django_workflows.registry import WorkflowDefinition

from .runtime import get_client

if TYPE_CHECKING:
    from django_workflows.client import WorkflowHandle

P = ParamSpec("P")
R = TypeVar("R")

ConflictPolicy = Literal["raise", "use_existing", "terminate_existing"]


@dataclass(frozen=True)
class StartOptions:
    """How one instance is started; see `Workflow.using`."""

    instance_id: str | None = None
    queue: str | None = None
    on_conflict: ConflictPolicy = "raise"
    subject: Any = None
    attributes: Mapping[str, Any] | None = None


class Workflow(Generic[P, R]):
    """A registered workflow.

    Example:
        handle = fulfil_order.using(instance_id="order-17").start(17, cents=990)
    """

    def __init__(self, definition: WorkflowDefinition, options: StartOptions | None = None) -> None:
        self.definition = definition
        self.options = options or StartOptions(queue=definition.queue)
        self.__doc__ = definition.function.__doc__
        self.__name__ = definition.function.__name__

    @property
    def name(self) -> str:
        """The registered name."""
        return self.definition.name

    def using(self, **options: Any) -> Workflow[P, R]:
        """Return a copy with other options.

        `instance_id`: the caller's id, at most 255 characters. `queue`: where its steps run. `on_conflict`: what to do
        when the id is open: "raise", "use_existing" or "terminate_existing". `subject`: a saved model instance the
        workflow is about. `attributes`: a JSON object readable with the ORM. Raises TypeError for any other name.
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
        return self.definition.function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Run as a child of the calling workflow; outside a workflow raises NotInWorkflowError."""
        machine = current_machine()
        if machine is None:
            raise NotInWorkflowError(
                f"{self.name} was called outside a workflow: use .start(...) to start an instance of it, "
                ".call(...) to run the bare function"
            )
        if replace(self.options, queue=None) != StartOptions():
            raise NotAllowedInWorkflowError(
                f"expected only queue in .using() of the child workflow {self.name}, found other options; "
                "a child gets an instance_id of its own"
            )
        payload = self.definition.signature.encode_arguments(args, kwargs, machine.payload_limit)
        coroutine = self._run_as_child(machine, payload, calling_location())
        coroutine.__qualname__ = self.name  # type: ignore[attr-defined]  # what Python's "never awaited" warning shows
        return coroutine

    async def _run_as_child(self, machine: Machine, payload: bytes, location: str) -> R:
        execution_id = machine.uuid_hex()
        result = await machine.decide_and_wait(
            ChildScheduled(
                command=machine.next_command(),
                name=self.name,
                input=Raw(payload),
                queue=self.options.queue or machine.info.queue,
                execution_id=execution_id,
                instance_id=execution_id,
                version=self.definition.version,
            ),
            location,
        )
        value: R = self.definition.signature.decode_result(result)
        return value

"""Handles: what the application does with one instance."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, NamedTuple, NoReturn, ParamSpec, TypeVar, overload

import msgspec
from asgiref.sync import sync_to_async

from . import payloads, registry, replayer, updates, wakeups
from .authoring.handlers import QueryHandler, UpdateHandler
from .authoring.signal import Signal
from .authoring.workflow import Workflow
from .conf import get_settings
from .exceptions import (
    ResultInTransactionError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTerminated,
)
from .failures import Failure
from .model_objects import fetched_result
from .models import HistoryEvent, InstanceStatus, WorkflowInstance
from .store import messages, retention
from .store.database import Database
from .updates import UpdateHandle
from .waiting import Wait

R = TypeVar("R", covariant=True)
T = TypeVar("T")
P = ParamSpec("P")


class RecordedEvent(NamedTuple):
    """One event of an instance's history; `data` is its JSON, decoded."""

    sequence: int
    type: str
    time: datetime
    data: dict[str, Any]


class WorkflowHandle(Generic[R]):
    """A reference to an instance by its instance_id.

    It follows the newest execution of the id, unless `execution_id` binds it to one. Making one reads nothing.
    """

    def __init__(
        self, instance_id: str, execution_id: str | None = None, workflow: Workflow[Any, Any] | None = None
    ) -> None:
        self.instance_id = instance_id
        self.execution_id = execution_id
        self._workflow = workflow
        self._database = Database()

    def __repr__(self) -> str:
        bound = f", execution_id={self.execution_id!r}" if self.execution_id else ""
        return f"WorkflowHandle({self.instance_id!r}{bound})"

    def describe(self) -> WorkflowInstance:
        """Return the instance's row; raises InstanceNotFound."""
        return messages.find_instance(self._database, self.instance_id, self.execution_id)

    async def adescribe(self) -> WorkflowInstance:
        """Describe from async code."""
        return await sync_to_async(self.describe)()

    @property
    def status(self) -> InstanceStatus:
        """The instance's status now; raises InstanceNotFound."""
        return InstanceStatus(self.describe().status)

    async def astatus(self) -> InstanceStatus:
        """Return the status from async code."""
        return await sync_to_async(lambda: self.status)()

    def result(self, timeout: float | None = None) -> R:
        """Wait for the instance to close and return its result; follows continue-as-new.

        `timeout` in seconds: raises TimeoutError after it and leaves the instance alone. Raises WorkflowFailed,
        WorkflowCancelled or WorkflowTerminated for an instance that closed that way, InstanceNotFound, ObjectNotFound
        for a result whose row is gone, and ResultInTransactionError where the wait would be for a commit of the
        caller's own.
        """
        return self._result_of(self.wait_closed(timeout))

    async def aresult(self, timeout: float | None = None) -> R:
        """Wait for the result from async code; see `result`."""
        return await sync_to_async(self._result_of)(await self.await_closed(timeout))

    def wait_closed(self, timeout: float | None = None) -> WorkflowInstance:
        """Wait for the instance to close in whatever way, and return the row of its last execution.

        Raises what `result` raises, except for how the instance ended.
        """
        wait = Wait(timeout)
        return wait.until(lambda: self._closed_row(wait))

    async def await_closed(self, timeout: float | None = None) -> WorkflowInstance:
        """Wait for the end from async code; see `wait_closed`."""
        wait = Wait(timeout)
        return await wait.auntil(lambda: self._closed_row(wait))

    @overload
    def signal(self, signal: Signal[T], value: T) -> None: ...

    @overload
    def signal(self, signal: Signal[None]) -> None: ...

    @overload
    def signal(self, signal: str, value: Any = None) -> None: ...

    def signal(self, signal: Signal[Any] | str, value: Any = None) -> None:
        """Send a signal in the caller's transaction; raises InstanceNotFound, InstanceNotRunning, PayloadError."""
        name = signal.name if isinstance(signal, Signal) else signal
        payload = payloads.encode(value, what=f"signal {name!r}", limit=get_settings().max_payload_bytes)
        messages.signal(self._database, self.instance_id, self.execution_id, name, payload)
        wakeups.announce_on_commit(self._database.alias)

    @overload
    async def asignal(self, signal: Signal[T], value: T) -> None: ...

    @overload
    async def asignal(self, signal: Signal[None]) -> None: ...

    @overload
    async def asignal(self, signal: str, value: Any = None) -> None: ...

    async def asignal(self, signal: Signal[Any] | str, value: Any = None) -> None:
        """Signal from async code."""
        await sync_to_async(lambda: self.signal(signal, value))()

    @overload
    def query(self, query: QueryHandler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    def query(self, query: str, /, *args: Any, **kwargs: Any) -> Any: ...

    def query(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return the answer of a query handler, from a replay of the history in this process.

        Also of a closed instance, and without any worker. Sees what is recorded, not what still waits in the inbox.
        Raises InstanceNotFound, UnknownHandlerError, what the handler raises, and whatever keeps the history from
        replaying, such as NondeterminismError. Changes nothing.
        """
        row = self.describe()
        handler = (
            query.handler
            if isinstance(query, QueryHandler)
            else registry.get_workflow(row.name).find_handler("query", query)
        )
        input = msgspec.Raw(handler.signature.encode_arguments(args, kwargs, get_settings().max_payload_bytes))
        machine = replayer.replay(self._database, row.pk)
        try:
            answer = machine.query(handler.name, input)
        finally:
            machine.dispose()
        return fetched_result(handler.signature, answer, f"the answer of {handler.name} of {self.instance_id!r}")

    @overload
    async def aquery(self, query: QueryHandler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def aquery(self, query: str, /, *args: Any, **kwargs: Any) -> Any: ...

    async def aquery(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Query from async code."""
        return await sync_to_async(lambda: self.query(query, *args, **kwargs))()

    @overload
    def update(self, update: UpdateHandler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    def update(self, update: str, /, *args: Any, **kwargs: Any) -> Any: ...

    def update(self, update: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Ask for an update and wait for its answer without a limit; raises what `start_update` and its result do.

        Inside an open transaction it raises ResultInTransactionError and asks for nothing.
        """
        return self._ask_to_wait(update, args, kwargs).result()

    @overload
    async def aupdate(self, update: UpdateHandler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def aupdate(self, update: str, /, *args: Any, **kwargs: Any) -> Any: ...

    async def aupdate(self, update: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Update from async code."""
        return await (await sync_to_async(self._ask_to_wait)(update, args, kwargs)).aresult()

    def _ask_to_wait(self, update: Any, args: Any, kwargs: Any) -> UpdateHandle[Any]:
        updates.refuse_wait_in_transaction(self._database, update if isinstance(update, str) else update.name)
        return updates.request(self._database, self.instance_id, self.execution_id, update, args, kwargs)

    @overload
    def start_update(self, update: UpdateHandler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> UpdateHandle[T]: ...

    @overload
    def start_update(self, update: str, /, *args: Any, **kwargs: Any) -> UpdateHandle[Any]: ...

    def start_update(self, update: Any, /, *args: Any, **kwargs: Any) -> UpdateHandle[Any]:
        """Ask for an update in the caller's transaction and return its handle; no worker needs to be there.

        Raises InstanceNotFound, InstanceNotRunning, UnknownHandlerError, and TypeError or PayloadError for arguments.
        """
        return updates.request(self._database, self.instance_id, self.execution_id, update, args, kwargs)

    @overload
    async def astart_update(
        self, update: UpdateHandler[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> UpdateHandle[T]: ...

    @overload
    async def astart_update(self, update: str, /, *args: Any, **kwargs: Any) -> UpdateHandle[Any]: ...

    async def astart_update(self, update: Any, /, *args: Any, **kwargs: Any) -> UpdateHandle[Any]:
        """Ask for an update from async code."""
        return await sync_to_async(lambda: self.start_update(update, *args, **kwargs))()

    @overload
    def get_update(self, update_id: str, update: UpdateHandler[P, T]) -> UpdateHandle[T]: ...

    @overload
    def get_update(self, update_id: str) -> UpdateHandle[Any]: ...

    def get_update(self, update_id: str, update: UpdateHandler[Any, Any] | None = None) -> UpdateHandle[Any]:
        """Return the handle of an update that was asked for before, without looking whether it exists.

        Without `update` its result is JSON data as it is stored.
        """
        return UpdateHandle(self.instance_id, update_id, None if update is None else update.handler)

    def cancel(self, reason: str = "") -> None:
        """Ask the instance to cancel, in the caller's transaction; raises InstanceNotFound, InstanceNotRunning.

        Its code sees CancelledError at its current await and may clean up; this does not wait for it.
        """
        messages.cancel(self._database, self.instance_id, self.execution_id, reason)
        wakeups.announce_on_commit(self._database.alias)

    async def acancel(self, reason: str = "") -> None:
        """Cancel from async code."""
        await sync_to_async(self.cancel)(reason)

    def terminate(self, reason: str = "") -> None:
        """Close the instance at once, in the caller's transaction; raises InstanceNotFound, InstanceNotRunning.

        None of its code runs, running activities learn of it within seconds, children are told as their `parent_close`
        says.
        """
        messages.terminate(self._database, self.instance_id, self.execution_id, reason)
        wakeups.announce_on_commit(self._database.alias)

    async def aterminate(self, reason: str = "") -> None:
        """Terminate from async code."""
        await sync_to_async(self.terminate)(reason)

    def history(self) -> list[RecordedEvent]:
        """Return the execution's history, oldest first; raises InstanceNotFound."""
        rows = (
            HistoryEvent.objects.using(self._database.alias).filter(instance_id=self.describe().pk).order_by("sequence")
        )
        return [RecordedEvent(row.sequence, row.type, row.time, msgspec.json.decode(row.data)) for row in rows]

    async def ahistory(self) -> list[RecordedEvent]:
        """Return the history from async code."""
        return await sync_to_async(self.history)()

    def remove(self) -> None:
        """Remove a closed instance, or the bound execution, with its history.

        Raises InstanceNotFound, InstanceNotFinished.
        """
        retention.remove(self._database, self.instance_id, self.execution_id)

    async def aremove(self) -> None:
        """Remove from async code."""
        await sync_to_async(self.remove)()

    def _closed_row(self, wait: Wait) -> WorkflowInstance | None:
        """Return the last execution's row once it is closed, None while waiting for it makes sense."""
        row = self.describe()
        if row.closed_at is not None:
            row = self._last_of_chain(row)
        if row.closed_at is not None:
            return row
        if self._database.connection.in_atomic_block:
            raise ResultInTransactionError(
                f"result() of {self.instance_id!r} was called inside an open transaction: no worker sees the start "
                "before this transaction commits, so the wait would never end; call it after the commit"
            )
        if wait.is_over:
            raise TimeoutError(f"instance {self.instance_id!r} is still {row.status} after {wait.timeout:g} s")
        return None

    def _last_of_chain(self, row: WorkflowInstance) -> WorkflowInstance:
        chain = WorkflowInstance.objects.using(self._database.alias).filter(chain_id=row.chain)
        return chain.order_by("-id").first() or row

    def _result_of(self, row: WorkflowInstance) -> R:
        where = f"{row.name} {row.instance_id!r}"
        match row.status:
            case InstanceStatus.COMPLETED:
                workflow = registry.workflows.get(row.name) if self._workflow is None else self._workflow.definition
                signature = None if workflow is None else workflow.signature
                result: R = fetched_result(signature, row.result or "null", f"the result of {where}")
                return result
            case InstanceStatus.CANCELLED:
                raise WorkflowCancelled(f"{where} was cancelled")
            case InstanceStatus.TERMINATED:
                reason = Failure.decode(row.failure).message if row.failure else ""
                raise WorkflowTerminated(f"{where} was terminated: {reason or 'no reason given'}")
        _raise_failed(where, row.failure)


def _raise_failed(where: str, failure: str | None) -> NoReturn:
    if failure is None:
        raise WorkflowFailed(f"{where} failed")
    cause = Failure.decode(failure)
    raise WorkflowFailed(f"{where} failed: {cause.type}: {cause.message}") from cause.rebuild()


def get_handle(instance_id: str, execution_id: str | None = None) -> WorkflowHandle[Any]:
    """Return a handle of any instance by its id, without looking whether it exists."""
    return WorkflowHandle(instance_id, execution_id)

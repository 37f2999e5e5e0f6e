"""The client: handles of instances, and what `start()` does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, overload

import msgspec
from asgiref.sync import sync_to_async
from django.contrib.contenttypes.models import ContentType

from . import payloads, registry, wakeups
from .authoring.signal import Signal
from .authoring.workflow import StartOptions, Workflow
from .conf import get_settings
from .exceptions import ResultInTransactionError, WorkflowCancelled, WorkflowFailed, WorkflowTerminated
from .failures import Failure
from .models import HistoryEvent, InstanceStatus, WorkflowInstance
from .store import messages, retention, starting
from .store.database import Database
from .store.starting import NewInstance

R = TypeVar("R", covariant=True)
T = TypeVar("T")

_FIRST_LOOK = 0.002
_LONGEST_PAUSE = 0.25
_CONFLICT_POLICIES = ("raise", "use_existing", "terminate_existing")


class RecordedEvent(NamedTuple):
    """One event of an instance's history; `data` is its JSON, decoded."""

    sequence: int
    type: str
    time: datetime
    data: dict[str, Any]


class _Wait:
    """The pauses of one wait: short at first, none beyond its end."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._ends = None if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_LOOK

    @property
    def is_over(self) -> bool:
        return self._ends is not None and time.monotonic() >= self._ends

    def next_pause(self) -> float:
        pause, self._pause = self._pause, min(self._pause * 1.5, _LONGEST_PAUSE)
        return pause if self._ends is None else max(0.0, min(pause, self._ends - time.monotonic()))


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
        WorkflowCancelled or WorkflowTerminated for an instance that closed that way, InstanceNotFound, and
        ResultInTransactionError where the wait would be for a commit of the caller's own.
        """
        wait = _Wait(timeout)
        while (closed := self._closed_row(wait)) is None:
            time.sleep(wait.next_pause())
        return self._result_of(closed)

    async def aresult(self, timeout: float | None = None) -> R:
        """Wait for the result from async code; see `result`."""
        wait = _Wait(timeout)
        # On the caller's own connection, and holding no thread between two looks.
        while (closed := await sync_to_async(self._closed_row)(wait)) is None:
            await asyncio.sleep(wait.next_pause())
        return await sync_to_async(self._result_of)(closed)

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

        None of its code runs, running activities learn of it within seconds, children are asked to cancel.
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

    def _closed_row(self, wait: _Wait) -> WorkflowInstance | None:
        """Return the last execution's row once it is closed, None while waiting for it makes sense."""
        row = self.describe()
        if row.status == InstanceStatus.CONTINUED_AS_NEW:
            row = self._last_of_chain(row)
        if InstanceStatus(row.status).is_closed:
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
                if workflow is None:
                    value: Any = msgspec.json.decode(row.result or "null")
                else:
                    value = workflow.signature.decode_result(row.result or "null")
                result: R = value
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


class ModelClient:
    """Starts instances in the project's database; what `Workflow.start` and `handle` call."""

    def start(self, workflow: Workflow[Any, Any], args: Any, kwargs: Any) -> WorkflowHandle[Any]:
        options = workflow.options
        if options.on_conflict not in _CONFLICT_POLICIES:
            raise ValueError(f"expected on_conflict to be one of {_CONFLICT_POLICIES}, found {options.on_conflict!r}")
        database = Database()
        row = starting.start(database, _new_instance(workflow, options, args, kwargs), options.on_conflict)
        wakeups.announce_on_commit(database.alias)
        return WorkflowHandle(row.instance_id, None, workflow)

    def start_many(
        self, workflow: Workflow[Any, Any], arguments: Iterable[tuple[Any, ...]], instance_ids: Iterable[str] | None
    ) -> list[WorkflowHandle[Any]]:
        if workflow.options.on_conflict != "raise":
            raise ValueError("start_many() starts all or none: expected on_conflict='raise'")
        if workflow.options.instance_id is not None:
            raise ValueError("start_many() takes its ids from instance_ids=, not from using(instance_id=)")
        calls = list(arguments)
        ids = [None] * len(calls) if instance_ids is None else list(instance_ids)
        if len(ids) != len(calls):
            raise ValueError(f"expected one instance_id for each of the {len(calls)} calls, found {len(ids)}")
        build = partial(_new_instance, workflow, workflow.options)
        news = [replace(build(args, {}), instance_id=instance_id) for args, instance_id in zip(calls, ids, strict=True)]
        database = Database()
        rows = starting.start_many(database, news)
        wakeups.announce_on_commit(database.alias)
        return [WorkflowHandle(row.instance_id, None, workflow) for row in rows]

    def handle(
        self, instance_id: str, execution_id: str | None, workflow: Workflow[Any, Any] | None
    ) -> WorkflowHandle[Any]:
        return WorkflowHandle(instance_id, execution_id, workflow)


def _new_instance(
    workflow: Workflow[Any, Any], options: StartOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> NewInstance:
    settings = get_settings()
    payload = workflow.definition.signature.encode_arguments(args, kwargs, settings.max_payload_bytes)
    subject_type_id, subject_pk = _subject(options.subject)
    return NewInstance(
        name=workflow.name, queue=options.queue or settings.default_queue, input=payload.decode(),
        instance_id=options.instance_id, version=workflow.definition.version, subject_type_id=subject_type_id,
        subject_pk=subject_pk, attributes=dict(options.attributes or {}),
    )  # fmt: skip


def _subject(subject: Any) -> tuple[int | None, str]:
    if subject is None:
        return None, ""
    if subject.pk is None:
        raise ValueError(
            f"expected a saved object as subject, found an unsaved {type(subject).__name__}; save it first"
        )
    return ContentType.objects.get_for_model(subject).pk, str(subject.pk)

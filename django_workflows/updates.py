"""Updates: messages with an answer, asked for in the caller's transaction and answered by a worker."""

from __future__ import annotations

import uuid
from typing import Any, Generic, TypeVar

from asgiref.sync import sync_to_async

from . import registry, wakeups
from .authoring.handlers import UpdateHandler
from .conf import get_settings
from .exceptions import InstanceNotFound, ResultInTransactionError, UpdateFailed, UpdateNotAnswered, UpdateRejected
from .failures import Failure
from .model_objects import fetched_result
from .models import OpenInstance, WorkflowUpdate
from .store import messages
from .store.database import Database
from .waiting import Wait

R = TypeVar("R", covariant=True)

_Status = WorkflowUpdate.Status


class UpdateHandle(Generic[R]):
    """An update that was asked for; its row holds the answer as long as the instance is kept. Making one reads nothing.

    Example:
        handle = Cart.handle("cart-17").start_update(Cart.add, "book")
        # in another request, by handle.update_id
        Cart.handle("cart-17").get_update(update_id, Cart.add).result(timeout=0)
    """

    def __init__(self, instance_id: str, update_id: str, handler: registry.Handler | None = None) -> None:
        self.instance_id = instance_id
        self.update_id = update_id
        self._handler = handler
        self._database = Database()

    def __repr__(self) -> str:
        return f"UpdateHandle({self.instance_id!r}, {self.update_id!r})"

    def describe(self) -> WorkflowUpdate:
        """Return the update's row; raises InstanceNotFound when it was removed with its instance."""
        row = WorkflowUpdate.objects.using(self._database.alias).filter(pk=self.update_id).first()
        if row is None:
            raise InstanceNotFound(
                f"update {self.update_id} of {self.instance_id!r} is gone, with its instance or its transaction"
            )
        return row

    @property
    def status(self) -> WorkflowUpdate.Status:
        """Whether the update is pending, accepted, completed, failed or rejected."""
        return _Status(self.describe().status)

    async def astatus(self) -> WorkflowUpdate.Status:
        """Return the status from async code."""
        return await sync_to_async(lambda: self.status)()

    def result(self, timeout: float | None = None) -> R:
        """Wait for the answer and return it.

        `timeout` in seconds: raises TimeoutError after it and leaves the update alone. Raises UpdateRejected,
        UpdateFailed, UpdateNotAnswered for an instance that closed before, and ResultInTransactionError where the wait
        would be for a commit of the caller's own.
        """
        wait = Wait(timeout)
        return self._result_of(wait.until(lambda: self._answered_row(wait)))

    async def aresult(self, timeout: float | None = None) -> R:
        """Wait for the answer from async code; see `result`."""
        wait = Wait(timeout)
        return await sync_to_async(self._result_of)(await wait.auntil(lambda: self._answered_row(wait)))

    def _answered_row(self, wait: Wait) -> WorkflowUpdate | None:
        row = self.describe()
        if _Status(row.status).is_answered:
            return row
        refuse_wait_in_transaction(self._database, row.name)
        if not OpenInstance.objects.using(self._database.alias).filter(chain_id=row.chain_id).exists():
            row = self.describe()  # answered between the two looks, perhaps in the step that closed it
            if not _Status(row.status).is_answered:
                raise UpdateNotAnswered(f"instance {self.instance_id!r} closed before it answered update {row.name!r}")
            return row
        if wait.is_over:
            raise TimeoutError(f"update {row.name!r} of {self.instance_id!r} is {row.status} after {wait.timeout:g} s")
        return None

    def _result_of(self, row: WorkflowUpdate) -> R:
        where = f"update {row.name!r} of {self.instance_id!r}"
        if row.status == _Status.COMPLETED:
            stored = row.result or "null"
            signature = None if self._handler is None else self._handler.signature
            value: R = fetched_result(signature, stored, f"the result of {where}")
            return value
        failure = Failure.decode(row.failure or "")
        cause = failure.rebuild()
        if isinstance(cause, UpdateNotAnswered):
            raise cause
        if row.status == _Status.REJECTED:
            raise UpdateRejected(f"{where} was rejected: {failure.type}: {failure.message}") from cause
        raise UpdateFailed(f"{where} failed: {failure.type}: {failure.message}") from cause


def refuse_wait_in_transaction(database: Database, name: str) -> None:
    """Raise ResultInTransactionError where a worker cannot see what the caller's open transaction asks for."""
    if database.connection.in_atomic_block:
        raise ResultInTransactionError(
            f"the result of update {name!r} was asked for inside an open transaction: no worker sees the update before "
            "this transaction commits, so the wait would never end; use start_update() and ask for its result after "
            "the commit"
        )


def request(
    database: Database, instance_id: str, execution_id: str | None, update: UpdateHandler[Any, Any] | str, args: Any,
    kwargs: Any,
) -> UpdateHandle[Any]:  # fmt: skip
    """Insert an update in the caller's transaction and return its handle."""
    if isinstance(update, UpdateHandler):
        handler = update.handler
    else:
        workflow = messages.find_instance(database, instance_id, execution_id).name
        handler = registry.get_workflow(workflow).find_handler("update", update)
    payload = handler.signature.encode_arguments(args, kwargs, get_settings().max_payload_bytes)
    update_id = uuid.uuid4().hex
    messages.update(database, instance_id, execution_id, update_id, handler.name, payload)
    wakeups.announce_on_commit(database.alias)
    return UpdateHandle(instance_id, update_id, handler)

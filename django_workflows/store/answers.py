"""What is answered to updates: by the steps of a turn, and where the instance has closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.db.backends.utils import CursorWrapper

from django_workflows.engine import events as ev
from django_workflows.engine.steps import Step
from django_workflows.exceptions import UpdateNotAnswered
from django_workflows.failures import Failure
from django_workflows.models import WorkflowUpdate

from .database import Database
from .dialects.base import Row

COLUMNS = ("status", "result", "failure", "answered_at")

_Status = WorkflowUpdate.Status


class Answers:
    """Collects the changes of update rows of one turn: the last one of each counts."""

    def __init__(self, to_time: Callable[[Any], Any]) -> None:
        self._to_time = to_time
        self._changes: dict[str, Row] = {}

    def add(self, step: Step) -> None:
        time = self._to_time(step.time)
        for update_id, failure in step.rejected:
            self._fail(update_id, _Status.REJECTED, failure, time)
        for event in step.events:
            match event:
                case ev.UpdateRequested():
                    self._changes[event.update_id] = (_Status.ACCEPTED.value, None, None, None)
                case ev.UpdateCompleted():
                    result = bytes(event.result).decode()
                    self._changes[event.update_id] = (_Status.COMPLETED.value, result, None, time)
                case ev.UpdateFailed():
                    self._fail(event.update_id, _Status.FAILED, event.failure, time)

    def rows(self) -> list[Row]:
        """Return update ids with the new values of COLUMNS."""
        return [(update_id, *change) for update_id, change in self._changes.items()]

    def _fail(self, update_id: str, status: WorkflowUpdate.Status, failure: Failure, time: Any) -> None:
        self._changes[update_id] = (status.value, None, failure.encode().decode(), time)


def leave_unanswered(
    database: Database, cursor: CursorWrapper, update_ids: Iterable[str], status: str, why: str
) -> None:
    """Say of updates that they get no answer any more."""
    failure = Failure.of(UpdateNotAnswered(why)).encode().decode()
    now = database.dialect.to_time(database.dialect.now(cursor))
    rows: list[Row] = [(update_id, status, None, failure, now) for update_id in update_ids]
    if rows:
        database.dialect.update(cursor, WorkflowUpdate, ("update_id",), COLUMNS, rows)

"""Committing a batch come what may: retries, ambiguous commits, and the one bad item in a good batch."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

from django.db import DataError, IntegrityError

from django_workflows.engine.events import ActivityFailed
from django_workflows.failures import Failure
from django_workflows.store.database import Database
from django_workflows.store.turns import commit_turn, find_landed
from django_workflows.store.work import InstanceStep, Outcome, TurnBatch, TurnResult
from django_workflows.store.workers import WorkerFenced

from . import stepping
from .outage import DATABASE_ERRORS, Outage

logger = logging.getLogger("django_workflows.worker")

_DATA_ERRORS = (DataError, IntegrityError)  # of the database's errors those that speak of an item, not of an outage


class Committer:
    """Commits batches for one incarnation of a worker."""

    def __init__(self, database: Database, worker_id: int, lease: timedelta, outage: Outage) -> None:
        self.database, self.worker_id, self.lease, self.outage = database, worker_id, lease, outage

    def commit(self, batch: TurnBatch) -> TurnResult:
        """Commit until the database has answered; raises WorkerFenced, or Interrupted."""
        result = TurnResult()
        while True:
            try:
                result = _merge(result, self._try(batch))
            except WorkerFenced:
                raise
            except Exception as error:
                if not isinstance(error, DATABASE_ERRORS) or isinstance(error, _DATA_ERRORS):
                    return _merge(result, self._bisect(batch, error))
                self.outage.wait(error)
            else:
                self.outage.end()
                return result
            landed = self._find_landed(batch)
            result, batch = _merge(result, landed), _without(batch, landed)

    def _try(self, batch: TurnBatch) -> TurnResult:
        self.database.prepare_worker_session(self.lease.total_seconds())
        return commit_turn(self.database, self.worker_id, batch)

    def _find_landed(self, batch: TurnBatch) -> TurnResult:
        """Return what the commit stored, whose reply may be all that was lost."""
        while True:
            try:
                self.database.prepare_worker_session(self.lease.total_seconds())
                return find_landed(self.database, self.worker_id, batch)
            except DATABASE_ERRORS as error:
                self.outage.wait(error)

    def _bisect(self, batch: TurnBatch, error: Exception) -> TurnResult:
        """Find the item that cannot be stored, so that it alone fails."""
        if len(batch.steps) > 1:
            middle = len(batch.steps) // 2
            rest = replace(batch, steps=batch.steps[:middle])
            return _merge(self.commit(rest), self.commit(TurnBatch(steps=batch.steps[middle:])))
        others = replace(batch, steps=[])
        if batch.steps:
            if batch.steps[0].blocked is not None and not others:
                raise error
            result = self.commit(TurnBatch(steps=[_refused(batch.steps[0], error)]))
            return _merge(result, self.commit(others)) if others else result
        if len(batch.outcomes) > 1:
            middle = len(batch.outcomes) // 2
            rest = replace(batch, outcomes=batch.outcomes[:middle])
            return _merge(self.commit(rest), self.commit(TurnBatch(outcomes=batch.outcomes[middle:])))
        if batch.outcomes and not isinstance(batch.outcomes[0].event, ActivityFailed):
            task = batch.outcomes[0].task
            failed = ActivityFailed(command=task.key.command, failure=Failure.of(error))
            return self.commit(replace(batch, outcomes=[Outcome(task, failed)]))
        raise error


def _without(batch: TurnBatch, landed: TurnResult) -> TurnBatch:
    """Return what is left to send again: the rest is written under a condition that its own success makes false."""
    tasks = {task.key for task in landed.claimed_tasks}
    return replace(
        batch,
        steps=[step for step in batch.steps if step not in landed.committed],
        claim_instances=[key for key in batch.claim_instances if key not in landed.claimed_instances],
        claim_tasks=[key for key in batch.claim_tasks if key not in tasks],
    )


def _refused(step: InstanceStep, error: Exception) -> InstanceStep:
    """Return the step that blocks its instance in place of one that cannot be stored."""
    logger.error("a step of %r cannot be stored: %s: %s", step.chain.info.instance_id, type(error).__name__, error)
    return stepping.blocked(step.chain, error, step.step.time)


def _merge(first: TurnResult, second: TurnResult) -> TurnResult:
    return TurnResult(
        committed=first.committed + second.committed,
        busy=first.busy + second.busy,
        lost=first.lost + second.lost,
        claimed_instances=first.claimed_instances + second.claimed_instances,
        claimed_tasks=first.claimed_tasks + second.claimed_tasks,
        sent=first.sent + second.sent,
        unleased=first.unleased + second.unleased,
    )

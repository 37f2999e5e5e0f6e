"""Running activities: sync ones in threads, async ones on a loop of their own, atomic ones in a transaction."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import msgspec
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import connections, reset_queries, transaction

from django_workflows import registry
from django_workflows.authoring import propagation
from django_workflows.authoring.attempt import AttemptContext, Beat, current_attempt
from django_workflows.completion import make_token
from django_workflows.conf import get_settings
from django_workflows.engine.events import ActivityCompleted
from django_workflows.model_objects import afetched, fetched
from django_workflows.payloads import Raw
from django_workflows.registry import ActivityDefinition
from django_workflows.store import activities as store
from django_workflows.store.database import Database
from django_workflows.store.deadlines import FINAL_LIMITS, timeout_error
from django_workflows.store.work import ClaimedTask, TaskKey
from django_workflows.wakeups.announcer import one_line

from .outage import DATABASE_ERRORS
from .running import Attempt, AttemptResult, info_of

logger = logging.getLogger("django_workflows.worker")

# How much work, in seconds of this pool's time, may be leased ahead of a free thread.
_LEAD = 0.1
_MOST_AHEAD = 1000


class _NotBegun(Exception):
    """The transaction of an atomic activity could not be opened; the cause says why."""


class ActivityPool:
    """Runs attempts and reports each once through `report`.

    A cancelled or timed-out attempt leaves the pool at once; what its thread still returns is ignored.
    """

    def __init__(
        self, database: Database, worker_id: int, threads: int, report: Callable[[AttemptResult], None]
    ) -> None:
        self.database = database
        self.worker_id = worker_id
        self.threads = threads
        self._report = report
        self._limit = get_settings().max_payload_bytes
        self._attempts: dict[TaskKey, Attempt] = {}
        self._queue: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._async_limit = get_settings().async_activities
        self._async_seen = False
        self._stuck = 0  # threads that still run an abandoned attempt
        self._stuck_lock = threading.Lock()
        self._stopped = False
        self._mean_seconds = 1.0  # of recent sync attempts; starts pessimistic, so that nothing is leased ahead

    def start(self) -> None:
        for number in range(self.threads):
            thread = threading.Thread(target=self._work, name=f"workflow-activity-{number + 1}", daemon=True)
            thread.start()
            self._workers.append(thread)

    def stop(self) -> None:
        """Take no more reports; attempts that still run are told that they are cancelled."""
        self._stopped = True
        for attempt in list(self._attempts.values()):
            self._abandon(attempt)
        for _ in self._workers:
            self._queue.put(None)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def __len__(self) -> int:
        return len(self._attempts)

    def chains(self) -> set[int]:
        """Return the chains whose activities are in the pool."""
        return {attempt.task.chain for attempt in list(self._attempts.values())}

    def running_since(self, moment: float) -> set[TaskKey]:
        """Return the attempts that came to the pool before a monotonic time and were not deferred.

        The task of a deferred one may be gone because it is completed already.
        """
        attempts = list(self._attempts.values())
        return {
            attempt.task.key for attempt in attempts if attempt.queued_at <= moment and attempt.context.token is None
        }

    def new_beats(self) -> Iterator[tuple[ClaimedTask, Beat]]:
        """Yield the attempts that sent a heartbeat since the last call, with the last one of each."""
        for attempt in list(self._attempts.values()):
            beat = attempt.context.beat
            if beat is not None and beat is not attempt.seen_beat:
                attempt.seen_beat = beat
                yield attempt.task, beat

    def room(self, *, is_async: bool) -> int:
        """Return how many more attempts of a kind may be leased.

        As many as there are free threads, and as many again as the threads finish in a tenth of a second at the recent
        pace: quick activities never wait for a claim, slow ones stay free for other workers.
        """
        asynchronous = (
            sum(attempt.definition.is_async for attempt in list(self._attempts.values())) if self._async_seen else 0
        )
        if is_async:
            return self._async_limit - asynchronous
        ahead = min(_MOST_AHEAD, int(self.threads * _LEAD / max(self._mean_seconds, 1e-6)))
        return self.threads + ahead - (len(self._attempts) - asynchronous) - self._stuck

    def submit(self, task: ClaimedTask, definition: ActivityDefinition, seconds_left: dict[str, float]) -> None:
        """Queue an attempt; `seconds_left` is what remains of the timeouts that count from before it begins."""
        context = AttemptContext(
            partial(info_of, task), partial(make_token, task), atomic=definition.atomic, payload_limit=self._limit
        )
        now = time.monotonic()
        limits = {limit: now + seconds for limit, seconds in seconds_left.items()}
        attempt = Attempt(task, definition, context, now, limits)
        self._attempts[task.key] = attempt
        if definition.is_async:
            self._async_seen = True
            self._start_async(attempt)
        else:
            self._queue.put(attempt)

    def cancel(self, key: TaskKey) -> None:
        """Tell an attempt that nobody wants its result any more, and forget it."""
        attempt = self._attempts.pop(key, None)
        if attempt is not None:
            self._abandon(attempt)

    def expire(self) -> None:
        """Fail the attempts that are over one of their timeouts."""
        now = time.monotonic()
        for attempt in self._limited():
            moment, limit = attempt.deadline()
            if moment > now or (limit == "schedule_to_start" and not attempt.rule_out_start()):
                continue
            task = attempt.task
            error = timeout_error(limit, task.name, task.attempt, task.options)
            self._finish(attempt, AttemptResult(task, error=error, is_final=limit in FINAL_LIMITS))
            self._abandon(attempt)

    def next_deadline(self) -> float:
        """Return the monotonic time of the next timeout, infinity without one."""
        return min((attempt.deadline()[0] for attempt in self._limited()), default=math.inf)

    def _limited(self) -> list[Attempt]:
        """Return the attempts to which a timeout applies now: few, also where many are leased ahead."""
        # A copy: the pool's threads remove attempts meanwhile.
        return [attempt for attempt in list(self._attempts.values()) if attempt.limits]

    def take_back(self, waited: float) -> list[ClaimedTask]:
        """Remove the attempts that have waited for a thread longer than this, so that other workers can run them."""
        now = time.monotonic()
        taken = []
        for attempt in list(self._attempts.values()):
            may_go = not attempt.definition.is_async and now - attempt.queued_at >= waited
            if may_go and attempt.rule_out_start() and self._attempts.pop(attempt.task.key, None) is attempt:
                taken.append(attempt.task)
        return taken

    def _abandon(self, attempt: Attempt) -> None:
        with attempt.lock:
            attempt.started = True  # one that still waits for a thread never starts
            if attempt.is_in_thread and not attempt.context.is_cancelled:
                self._count_stuck(1)
            attempt.context.is_cancelled = True
        if attempt.definition.is_async and self._loop is not None:
            self._loop.call_soon_threadsafe(_cancel_coroutine, attempt)

    def _finish(self, attempt: Attempt, result: AttemptResult) -> None:
        """Report a result unless the attempt has left the pool meanwhile; its end and its timeout may race."""
        with attempt.lock:
            if self._stopped or self._attempts.get(attempt.task.key) is not attempt:
                return
            del self._attempts[attempt.task.key]
        beat = attempt.context.beat
        self._report(result if beat is None else msgspec.structs.replace(result, beat=beat))

    def _count_stuck(self, change: int) -> None:
        with self._stuck_lock:
            self._stuck += change

    def _returned(self, attempt: Attempt, value: object) -> AttemptResult:
        if attempt.context.token is not None:
            return AttemptResult(attempt.task, deferred_since=attempt.began_at)
        return AttemptResult(attempt.task, result=attempt.definition.signature.encode_result(value, self._limit))

    # Sync activities

    def _work(self) -> None:
        while (attempt := self._queue.get()) is not None:
            if attempt.begin():
                self._complete(attempt)
        connections.close_all()

    def _complete(self, attempt: Attempt) -> None:
        # A fresh context: what one activity sets in it, such as a language, is gone for the next.
        result = contextvars.Context().run(self._run_sync, attempt)
        self._mean_seconds += 0.1 * (time.monotonic() - attempt.began_at - self._mean_seconds)
        self._finish(attempt, result)
        self._leave_thread(attempt)

    def _leave_thread(self, attempt: Attempt) -> None:
        with attempt.lock:
            attempt.is_in_thread = False
            if attempt.context.is_cancelled:
                self._count_stuck(-1)

    def _run_sync(self, attempt: Attempt) -> AttemptResult:
        task, definition = attempt.task, attempt.definition
        current_attempt.set(attempt.context)
        _freshen_connections()
        try:
            propagation.restore(task.options.get("context", {}))
            if definition.atomic:
                self._run_atomic(attempt)
                return AttemptResult(task)
            args, kwargs = fetched(*_arguments(attempt))
            return self._returned(attempt, definition.callable()(*args, **kwargs))
        except store.LeaseLost:
            return AttemptResult(task)
        except _NotBegun as error:
            return AttemptResult(task, error=error.__cause__, has_begun=False)
        except BaseException as error:
            return AttemptResult(task, error=error)
        finally:
            _freshen_connections()

    def _run_atomic(self, attempt: Attempt) -> None:
        task, definition = attempt.task, attempt.definition
        with ExitStack() as stack:
            try:
                stack.enter_context(transaction.atomic(using=self.database.alias, durable=True))
            except DATABASE_ERRORS as error:
                raise _NotBegun from error
            args, kwargs = fetched(*_arguments(attempt))
            value = definition.callable()(*args, **kwargs)
            payload = definition.signature.encode_result(value, self._limit)
            event = ActivityCompleted(task.key.command, Raw(payload))
            store.complete_atomically(self.database, self.worker_id, task, event)

    # Async activities

    def _start_async(self, attempt: Attempt) -> None:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop_thread = threading.Thread(target=self._run_loop, name="workflow-activity-loop", daemon=True)
            self._loop_thread.start()
        self._loop.call_soon_threadsafe(self._create_task, attempt)

    def _run_loop(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            if pending:
                # Their clean-up closes their threads and connections.
                self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        finally:
            self._loop.close()

    def _create_task(self, attempt: Attempt) -> None:
        assert self._loop is not None
        if attempt.begin():
            attempt.coroutine_task = self._loop.create_task(self._run_async(attempt), context=contextvars.Context())

    async def _run_async(self, attempt: Attempt) -> None:
        task, definition = attempt.task, attempt.definition
        current_attempt.set(attempt.context)
        # A thread of its own for what the activity does with the ORM: else all of them would share one.
        async with ThreadSensitiveContext() as own_thread:
            try:
                propagation.restore(task.options.get("context", {}))
                args, kwargs = await afetched(*_arguments(attempt))
                result = self._returned(attempt, await definition.callable()(*args, **kwargs))
            except BaseException as error:
                result = AttemptResult(task, error=error)
            # The thread ends with its context, and its connections would leak with it.
            if own_thread in SyncToAsync.context_to_thread_executor:
                await sync_to_async(connections.close_all)()
        self._finish(attempt, result)


def _arguments(attempt: Attempt) -> tuple[Callable[[], tuple[list[Any], dict[str, Any]]], str]:
    """Return how an attempt's arguments are decoded, and where they come from."""
    task = attempt.task
    return partial(attempt.definition.signature.decode_arguments, task.input), f"the arguments of {task.name}"


def _cancel_coroutine(attempt: Attempt) -> None:
    """Runs on the loop, after the callback that creates the task: an attempt cannot slip through between the two."""
    if attempt.coroutine_task is not None:
        attempt.coroutine_task.cancel()


def _freshen_connections() -> None:
    """Do what a request's start and end do: drop broken and outlived connections, forget logged queries."""
    reset_queries()
    for connection in connections.all(initialized_only=True):
        try:
            connection.close_if_unusable_or_obsolete()
        except Exception as error:  # it is closed all the same, and this thread must live on
            logger.warning("closing a broken connection to %r failed: %s", connection.alias, one_line(error))


def known_names(*, is_async: bool) -> list[str]:
    """Return the names, old ones too, of the activities of a kind that this process can run."""
    definitions: Iterable[ActivityDefinition] = registry.activities
    found = [entry for entry in definitions if entry.is_available and entry.is_async is is_async]
    return [name for entry in found for name in (entry.name, *entry.aliases)]

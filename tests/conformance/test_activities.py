"""Activities: parallel ones, what their errors look like, forgotten ones, and how clean their surroundings are."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from contextvars import ContextVar

import pytest
from django.db import connection, transaction
from django.utils import timezone, translation

from django_workflows import (
    ActivityError,
    InstanceStatus,
    NotInActivityError,
    RetryPolicy,
    WorkflowFailed,
    activity,
    get_handle,
    workflow,
)
from django_workflows.failures import RemoteTraceback
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect

from .waiting import eventually

ONCE = RetryPolicy(max_attempts=1)


@activity(name="activities.double")
def double(number: int) -> int:
    return 2 * number


@activity(name="activities.async_double")
async def async_double(number: int) -> int:
    return 2 * number


@workflow(name="activities.gather_many")
async def gather_many(count: int) -> list[int]:
    return await asyncio.gather(*((async_double if number % 2 else double)(number) for number in range(count)))


@pytest.mark.parametrize("count", [100, 1000])
def test_results_of_parallel_activities_are_in_order(worker: Worker, count: int) -> None:
    handle = gather_many.start(count)
    assert handle.result(timeout=60) == [2 * number for number in range(count)]
    completed = [event.data["command"] for event in handle.history() if event.type == "ActivityCompleted"]
    assert sorted(completed) == list(range(1, count + 1))


@activity(name="activities.finish_after")
def finish_after(number: int, before: int | None) -> int:
    """Return once the instance's history holds the completion of another command."""
    handle = get_handle(activity.info().instance_id)

    def is_recorded() -> bool:
        return any(event.type == "ActivityCompleted" and event.data["command"] == before for event in handle.history())

    if before is not None:
        eventually(is_recorded)
    return number


@workflow(name="activities.finish_backwards")
async def finish_backwards() -> list[int]:
    return list(await asyncio.gather(finish_after(1, 2), finish_after(2, 3), finish_after(3, None)))


def test_the_history_is_in_order_of_completion(worker: Worker) -> None:
    handle = finish_backwards.start()
    assert handle.result(timeout=20) == [1, 2, 3]
    completed = [event.data["command"] for event in handle.history() if event.type == "ActivityCompleted"]
    assert completed == [3, 2, 1]


# Errors


class CardDeclined(Exception):
    """Passes other arguments on than it takes, as exceptions of the field do."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code


@activity(name="activities.decline", retry=ONCE)
def decline(code: int) -> None:
    raise CardDeclined(code, "no funds")


@activity(name="activities.decline_plainly", retry=ONCE)
async def decline_plainly() -> None:
    raise LookupError("no such card", 17)


@activity(name="activities.raise_unknown", retry=ONCE)
def raise_unknown() -> None:
    class Local(Exception):
        pass

    raise Local("of a class that nobody else knows")


@workflow(name="activities.catch")
async def catch() -> list[str]:
    found = []
    try:
        await decline(51)
    except CardDeclined as error:
        found.append(f"{error} {error.code}")
    try:
        await decline_plainly()
    except LookupError as error:
        found.append(repr(error.args))
    try:
        await raise_unknown()
    except ActivityError as error:
        found.append(f"{error.type.rpartition('.')[2]}: {error.message}")
        found.append(str("in raise_unknown" in error.traceback))
    return found


def test_a_custom_exception_arrives_as_itself(worker: Worker) -> None:
    assert catch.start().result(timeout=10) == [
        "no funds (51) 51",
        "('no such card', 17)",
        "Local: of a class that nobody else knows",
        "True",
    ]


@workflow(name="activities.let_through")
async def let_through() -> None:
    await decline(51)


def test_an_uncaught_exception_fails_the_workflow_with_the_remote_traceback(worker: Worker) -> None:
    handle = let_through.start()
    with pytest.raises(WorkflowFailed, match=r"no funds \(51\)") as caught:
        handle.result(timeout=10)
    error: BaseException | None = caught.value.__cause__
    assert isinstance(error, CardDeclined) and error.code == 51
    chain: list[BaseException] = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    assert isinstance(chain[-1], RemoteTraceback)
    assert 'raise CardDeclined(code, "no funds")' in str(chain[-1]) and "in let_through" in str(chain[-1])


@activity(name="activities.cancel_itself", retry=ONCE)
async def cancel_itself() -> None:
    raise asyncio.CancelledError


@workflow(name="activities.group_with_cancelled")
async def group_with_cancelled() -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(cancel_itself())
    return "nobody noticed"


def test_an_activity_that_cancels_itself_is_a_failure(worker: Worker) -> None:
    handle = group_with_cancelled.start()
    with pytest.raises(WorkflowFailed) as caught:
        handle.result(timeout=10)
    group = caught.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert [str(error) for error in group.exceptions] == ["asyncio.exceptions.CancelledError: "]


# Forgotten ones


@activity(name="activities.write")
def write(key: str) -> None:
    Effect.objects.create(key=key)


@workflow(name="activities.forget")
async def forget(key: str) -> str:
    task = asyncio.create_task(write(key))
    del task
    await asyncio.sleep(0)
    return "returned"


@workflow(name="activities.forget_a_failure")
async def forget_a_failure(then_sleep: bool) -> str:
    asyncio.create_task(decline(1))  # noqa: RUF006
    await asyncio.sleep(3600 if then_sleep else 0)
    return "returned"


def test_an_activity_that_nobody_awaits_still_runs(worker: Worker) -> None:
    handle = forget.start("forgotten")
    assert handle.result(timeout=10) == "returned"
    assert Effect.objects.filter(key="forgotten").count() == 1
    assert "ActivityCompleted" in [event.type for event in handle.history()]


@pytest.mark.parametrize("then_sleep", [True, False], ids=["while it goes on", "after it returned"])
def test_the_failure_of_an_activity_that_nobody_awaits_fails_the_instance(worker: Worker, then_sleep: bool) -> None:
    handle = forget_a_failure.start(then_sleep)
    with pytest.raises(WorkflowFailed, match="no funds"):
        handle.result(timeout=10)
    assert handle.status == InstanceStatus.FAILED


# What an activity meets


@activity(name="activities.describe_itself")
def describe_itself() -> dict[str, str | int]:
    info = activity.info()
    return {"activity": info.activity, "attempt": info.attempt, "queue": info.queue, "instance": info.instance_id}


@workflow(name="activities.ask_activity")
async def ask_activity() -> dict[str, str | int]:
    return await describe_itself()


def test_an_activity_knows_about_itself(worker: Worker) -> None:
    handle = ask_activity.using(instance_id="ask-1").start()
    expected = {"activity": "activities.describe_itself", "attempt": 1, "queue": "default", "instance": "ask-1"}
    assert handle.result(timeout=10) == expected
    with pytest.raises(NotInActivityError, match=r"activity\.info\(\)"):
        activity.info()


marker: ContextVar[str] = ContextVar("marker", default="clean")


def _look() -> str:
    return f"{marker.get()} {translation.get_language()} {timezone.get_current_timezone_name()}"


def _leave_traces() -> str:
    found = _look()
    marker.set("left behind")
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    return found


@activity(name="activities.leave_traces")
def leave_traces() -> str:
    return _leave_traces()


@activity(name="activities.async_leave_traces")
async def async_leave_traces() -> str:
    return _leave_traces()


@workflow(name="activities.look_for_traces")
async def look_for_traces() -> list[str]:
    return [await leave_traces(), await leave_traces(), await async_leave_traces(), await async_leave_traces()]


def test_nothing_set_in_one_activity_leaks_into_the_next(consistent_tables: None, cache_size: int) -> None:
    with running_worker(threads=1, sticky_cache_size=cache_size):
        assert look_for_traces.start().result(timeout=10) == ["clean en-us UTC"] * 4


@activity(name="activities.leave_a_transaction_open")
def leave_a_transaction_open() -> None:
    transaction.set_autocommit(False)
    Effect.objects.create(key="never committed")


@activity(name="activities.look_at_connection")
def look_at_connection() -> list[object]:
    return [connection.get_autocommit(), connection.in_atomic_block, Effect.objects.count()]


@activity(name="activities.break_connection")
def break_connection() -> None:
    connection.ensure_connection()
    connection.connection.close()


@workflow(name="activities.misuse_connection")
async def misuse_connection() -> list[list[object]]:
    await leave_a_transaction_open()
    first = await look_at_connection()
    await break_connection()
    return [first, await look_at_connection()]


def test_each_activity_finds_a_clean_connection(consistent_tables: None, cache_size: int) -> None:
    with running_worker(threads=1, sticky_cache_size=cache_size):
        assert misuse_connection.start().result(timeout=10) == [[True, False, 0], [True, False, 0]]


@activity(name="activities.count_asynchronously")
async def count_asynchronously() -> int:
    return await Effect.objects.acount()


@workflow(name="activities.count_many_times")
async def count_many_times(times: int) -> int:
    return sum(await asyncio.gather(*(count_asynchronously() for _ in range(times))))


def _open_connections() -> int:
    if connection.vendor == "sqlite":
        # Not the open files: SQLite keeps those of closed connections while another one holds a lock.
        return sum(_is_open(found) for found in gc.get_objects() if isinstance(found, sqlite3.Connection))
    table = {"postgresql": "pg_stat_activity WHERE datname", "mysql": "information_schema.processlist WHERE db"}
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {table[connection.vendor]} = %s", [connection.settings_dict["NAME"]])
        return int(cursor.fetchone()[0])


def _is_open(found: sqlite3.Connection) -> bool:
    try:
        return found.total_changes >= 0
    except sqlite3.ProgrammingError:
        return False


def test_async_activities_leave_no_connection_open(worker: Worker) -> None:
    gather_many.start(2).result(timeout=10)
    before = _open_connections()
    assert count_many_times.start(30).result(timeout=20) == 0
    eventually(lambda: _open_connections() <= before)

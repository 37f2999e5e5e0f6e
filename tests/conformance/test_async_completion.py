"""Activities that somebody else completes: a token leaves the process and comes back, perhaps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import signing
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_workflows import (
    AttemptNotRunning,
    InstanceNotFound,
    InstanceNotRunning,
    InvalidActivityToken,
    PayloadError,
    RetryPolicy,
    ScheduleToCloseTimeout,
    StartToCloseTimeout,
    WorkflowFailed,
    WorkflowHandle,
    activity,
    workflow,
)
from django_workflows.models import ActivityTask, InboxEvent
from django_workflows.store import leftovers, workers
from django_workflows.store.database import Database
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .gates import note, notes, open_gate, wait_at_gate, wait_for_cancel, wait_for_notes
from .store_support import elsewhere, skip_without_row_locks
from .waiting import eventually

AT_ONCE = RetryPolicy(max_attempts=5, initial_interval=timedelta(0))
HOUR = timedelta(hours=1)
SHORT = timedelta(seconds=0.25)


@dataclass
class Print:
    pages: int
    on: date


class PrinterOnFire(Exception):
    pass


@activity(name="completion.print_out", retry=AT_ONCE)
def print_out(key: str) -> Print:
    note(key, activity.defer())
    return Print(0, date(1999, 1, 1))


@activity(name="completion.async_print_out", retry=AT_ONCE)
async def async_print_out(key: str) -> Print:
    note(key, activity.defer())
    return Print(0, date(1999, 1, 1))


@workflow(name="completion.publish")
async def publish(is_async: bool = False) -> str:
    call: Any = async_print_out if is_async else print_out
    try:
        printed = await call(workflow.info().instance_id)
    except PrinterOnFire as error:
        return f"failed: {error}"
    return f"{printed.pages} pages on {printed.on:%d %B}"


RESULT = Print(7, date(2026, 3, 1))


def token_of(handle: WorkflowHandle[Any], attempt: int = 1) -> str:
    return wait_for_notes(handle.instance_id, attempt)[attempt - 1]


def is_deferred() -> bool:
    return ActivityTask.objects.filter(owner_id=None, available_at=None).exists()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_value_given_with_the_token_is_the_result(worker: Worker, is_async: bool) -> None:
    handle = publish.start(is_async)
    token = token_of(handle)
    eventually(is_deferred)
    activity.complete(token, RESULT)
    assert handle.result(timeout=10) == "7 pages on 01 March"
    assert [event.data.get("deferred") for event in handle.history() if event.type == "ActivityCompleted"] == [True]
    assert not ActivityTask.objects.exists()


def test_an_error_given_with_the_token_arrives_as_itself_and_is_not_tried_again(worker: Worker) -> None:
    handle = publish.start()
    token = token_of(handle)
    eventually(is_deferred)
    activity.fail(token, PrinterOnFire("tray 2"))
    assert handle.result(timeout=10) == "failed: tray 2"
    assert len(notes(handle.instance_id)) == 1
    assert not ActivityTask.objects.exists()


def test_async_twins_do_what_the_sync_ones_do(worker: Worker) -> None:
    completed, failed = publish.start(), publish.start()

    async def answer() -> None:
        await activity.acomplete(token_of(completed), RESULT)
        await activity.afail(token_of(failed), PrinterOnFire("tray 3"))

    for handle in (completed, failed):
        token_of(handle)
    async_to_sync(answer)()
    assert completed.result(timeout=10) == "7 pages on 01 March"
    assert failed.result(timeout=10) == "failed: tray 3"


def printed(request: HttpRequest, token: str) -> HttpResponse:
    """A webhook: what it does is one transaction, as under ATOMIC_REQUESTS."""
    with transaction.atomic():
        activity.complete(token, Print(int(request.POST["pages"]), date(2026, 3, 1)))
        if "fail" in request.POST:
            raise PrinterOnFire("in the view")
    return HttpResponse("thanks")


def test_a_view_completes_in_its_transaction_or_not_at_all(worker: Worker) -> None:
    handle = publish.start()
    url = f"/printed/{token_of(handle)}/"
    assert url.isascii() and " " not in url
    requests = RequestFactory()
    with pytest.raises(PrinterOnFire):
        printed(requests.post(url, {"pages": 3, "fail": "yes"}), url.split("/")[2])
    assert not handle.status.is_closed and not InboxEvent.objects.exists()
    printed(requests.post(url, {"pages": 4}), url.split("/")[2])
    assert handle.result(timeout=10) == "4 pages on 01 March"


# Early: before the function has returned, or before its deferral is stored


@activity(name="completion.linger", retry=AT_ONCE)
def linger(key: str) -> Print:
    note(key, activity.defer())
    wait_at_gate(key)
    note(key, f"cancelled: {activity.is_cancelled()}")
    return Print(0, date(1999, 1, 1))


@workflow(name="completion.do_not_wait")
async def do_not_wait(then_wait: bool) -> int:
    printed = await linger(workflow.info().instance_id)
    await workflow.wait_condition(lambda: not then_wait)
    return printed.pages


@activity(name="completion.wait_to_be_unwanted")
def wait_to_be_unwanted(key: str) -> None:
    note(key, "waits")
    wait_for_cancel()
    note(key, "is not wanted")


@workflow(name="completion.look_for_the_unwanted")
async def look_for_the_unwanted() -> None:
    await wait_to_be_unwanted(workflow.info().instance_id)


def let_the_worker_look_for_the_unwanted() -> None:
    handle = look_for_the_unwanted.start()
    wait_for_notes(handle.instance_id)
    ActivityTask.objects.filter(name="completion.wait_to_be_unwanted").delete()
    wait_for_notes(handle.instance_id, 2)
    handle.terminate()


@pytest.mark.parametrize("then_wait", [False, True], ids=["and closes", "and goes on"])
def test_it_may_be_completed_before_the_function_returns(worker: Worker, then_wait: bool) -> None:
    handle = do_not_wait.start(then_wait)
    activity.complete(token_of(handle), RESULT)
    eventually(lambda: "ActivityCompleted" in [event.type for event in handle.history()])
    assert not ActivityTask.objects.exists()
    let_the_worker_look_for_the_unwanted()
    open_gate(handle.instance_id)
    assert wait_for_notes(handle.instance_id, 2)[1] == "cancelled: False"
    eventually(lambda: worker._loop is not None and not worker._loop.attempts)
    assert not ActivityTask.objects.exists()
    if then_wait:
        handle.terminate()
    else:
        assert handle.result(timeout=10) == 7


@activity(name="completion.complete_itself", retry=AT_ONCE)
async def complete_itself() -> Print:
    await activity.acomplete(activity.defer(), RESULT)
    return Print(0, date(1999, 1, 1))


@workflow(name="completion.race")
async def race(count: int) -> list[int]:
    printed = await asyncio.gather(*(complete_itself() for _ in range(count)))
    return [entry.pages for entry in printed]


def test_results_that_race_with_their_deferrals_leave_no_task(worker: Worker) -> None:
    assert race.start(30).result(timeout=30) == [7] * 30
    eventually(lambda: not ActivityTask.objects.exists())


def test_a_deferral_on_another_worker_races_as_well(consistent_tables: None, cache_size: int) -> None:
    with running_worker(activities=False, sticky_cache_size=cache_size), running_worker(workflows=False):
        assert race.start(30).result(timeout=30) == [7] * 30
        eventually(lambda: not ActivityTask.objects.exists())


@pytest.mark.parametrize("holder", ["deferring", "sweeping"])
def test_a_result_waits_while_somebody_holds_its_task(worker: Worker, holder: str) -> None:
    """Deleting the task would skip the locked row, and the row would outlive its result."""
    skip_without_row_locks()
    handle = publish.start()
    token = token_of(handle)
    eventually(is_deferred)
    rows = ActivityTask.objects.filter(name="completion.print_out")
    write = {"deferring": lambda: rows.update(owner_id=None), "sweeping": lambda: list(rows.select_for_update())}
    with elsewhere(write[holder]):
        activity.complete(token, RESULT)
        assert publish_another(worker) == "7 pages on 01 March"
        assert not handle.status.is_closed
    assert handle.result(timeout=10) == "7 pages on 01 March"
    assert not ActivityTask.objects.exists()


def publish_another(worker: Worker) -> str:
    """Show that other instances go on meanwhile."""
    handle = publish.start()
    activity.complete(token_of(handle), RESULT)
    return handle.result(timeout=10)


# While it is deferred


@workflow(name="completion.publish_many")
async def publish_many(count: int) -> int:
    key = workflow.info().instance_id
    printed = await asyncio.gather(*(print_out(key) for _ in range(count)))
    return sum(entry.pages for entry in printed)


def test_deferred_activities_hold_no_thread(consistent_tables: None, cache_size: int) -> None:
    with running_worker(threads=1, sticky_cache_size=cache_size):
        handle = publish_many.start(20)
        tokens = wait_for_notes(handle.instance_id, 20)
        assert publish_one_more() == "7 pages on 01 March"
        for token in tokens:
            activity.complete(token, RESULT)
        assert handle.result(timeout=10) == 140


def publish_one_more() -> str:
    handle = publish.start()
    activity.complete(token_of(handle), RESULT)
    return handle.result(timeout=10)


def test_it_survives_a_restart_of_all_workers(consistent_tables: None, cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handle = publish.start()
        token = token_of(handle)
        eventually(is_deferred)
    workers.hand_back(Database())
    assert is_deferred()
    activity.complete(token, RESULT)
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "7 pages on 01 March"
    assert len(notes(handle.instance_id)) == 1


def test_a_worker_that_dies_before_the_deferral_is_stored_loses_the_attempt(
    consistent_tables: None, cache_size: int
) -> None:
    with running_worker(sticky_cache_size=cache_size) as running:
        handle = do_not_wait.start(False)
        first = token_of(handle)
        workers.retire(Database(), running.id)
        workers.hand_back(Database())
        second = token_of(handle, 2)
        with pytest.raises(AttemptNotRunning, match="attempt 2 has taken its place"):
            activity.complete(first, RESULT)
        open_gate(handle.instance_id)
        activity.complete(second, RESULT)
        assert handle.result(timeout=10) == 7


@activity(name="completion.defer_and_fail", retry=AT_ONCE)
def defer_and_fail(key: str) -> int:
    note(key, activity.defer())
    assert activity.defer() == notes(key)[-1], "one attempt, one token"
    if activity.info().attempt == 1:
        raise PrinterOnFire("after it was deferred")
    return 0


@workflow(name="completion.try_again")
async def try_again() -> int:
    return await defer_and_fail(workflow.info().instance_id)


def test_an_attempt_that_raises_after_it_was_deferred_has_failed(worker: Worker) -> None:
    handle = try_again.start()
    token = token_of(handle, 2)
    with pytest.raises(AttemptNotRunning):
        activity.complete(token_of(handle), 1)
    activity.complete(token, 2)
    assert handle.result(timeout=10) == 2


# Timeouts


@workflow(name="completion.wait_until")
async def wait_until(limit: str, attempts: int | None) -> str:
    policy = RetryPolicy(max_attempts=attempts, initial_interval=timedelta(0))
    call = print_out.using(retry=policy)
    if limit == "start_to_close":
        call = call.using(start_to_close_timeout=SHORT)
    else:
        call = call.using(start_to_close_timeout=HOUR, schedule_to_close_timeout=SHORT)
    try:
        await call(workflow.info().instance_id)
    except (StartToCloseTimeout, ScheduleToCloseTimeout) as error:
        return f"{type(error).__name__}: {error}"
    return "printed"


@pytest.mark.parametrize("limit", ["start_to_close", "schedule_to_close"])
def test_the_timeouts_go_on(worker: Worker, limit: str) -> None:
    handle = wait_until.start(limit, 1)
    kind = {"start_to_close": "StartToCloseTimeout", "schedule_to_close": "ScheduleToCloseTimeout"}[limit]
    result = handle.result(timeout=10)
    assert result.startswith(f"{kind}: completion.print_out, attempt 1") and f"{limit}_timeout of 0.25 s" in result
    with pytest.raises(InstanceNotRunning):
        activity.complete(token_of(handle), RESULT)


def test_one_that_nobody_completes_in_time_is_tried_again_with_a_new_token(worker: Worker) -> None:
    handle = wait_until.start("start_to_close", None)
    tokens = wait_for_notes(handle.instance_id, 3)
    assert len(set(tokens)) == len(tokens)
    with pytest.raises(AttemptNotRunning):
        activity.complete(tokens[0], RESULT)
    with pytest.raises(AttemptNotRunning):
        activity.fail(tokens[0], PrinterOnFire())
    handle.terminate()


def test_a_late_result_between_two_attempts_is_refused(worker: Worker) -> None:
    handle = publish.start()
    token = token_of(handle)
    eventually(is_deferred)
    ActivityTask.objects.update(available_at=Database().now() + HOUR)  # what a timeout with a pause leaves
    with pytest.raises(AttemptNotRunning, match="the next attempt is due"):
        activity.complete(token, RESULT)
    handle.terminate()


# Refused


def _forge(token: str) -> str:
    return signing.dumps([1, 1, 1], salt="another")


@pytest.mark.parametrize("change", [lambda t: "", lambda t: t[:-1], lambda t: t + "x", lambda t: "7:1:1", _forge])
def test_what_is_no_token_is_refused(worker: Worker, change: Callable[[str], str]) -> None:
    handle = publish.start()
    token = token_of(handle)
    for end in (lambda wrong: activity.complete(wrong, RESULT), lambda wrong: activity.fail(wrong, PrinterOnFire())):
        with pytest.raises(InvalidActivityToken, match=r"expected a token from activity\.defer\(\)"):
            end(change(token))
    activity.complete(token, RESULT)
    handle.result(timeout=10)


def test_a_token_is_good_for_one_result(consistent_tables: None, cache_size: int) -> None:
    with running_worker(sticky_cache_size=cache_size):
        handle = do_not_wait.start(True)
        token = token_of(handle)
        open_gate(handle.instance_id)
        eventually(is_deferred)
    activity.complete(token, RESULT)
    with pytest.raises(AttemptNotRunning, match="already"):
        activity.complete(token, RESULT)  # no worker has read the first one yet
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: not ActivityTask.objects.exists())
        with pytest.raises(AttemptNotRunning, match="the activity has ended"):
            activity.fail(token, PrinterOnFire())
        handle.terminate()
    with pytest.raises(InstanceNotRunning, match="found it terminated"):
        activity.complete(token, RESULT)
    handle.remove()
    with pytest.raises(InstanceNotFound, match="removed"):
        activity.complete(token, RESULT)


@pytest.mark.parametrize("wrong", ["seven", {"pages": "seven", "on": "2026-03-01"}, object()])
def test_a_value_that_the_activity_does_not_return_is_refused(worker: Worker, wrong: object) -> None:
    handle = publish.start()
    token = token_of(handle)
    with pytest.raises(PayloadError, match=r"the result of completion\.print_out"):
        activity.complete(token, wrong)
    activity.complete(token, RESULT)
    assert handle.result(timeout=10) == "7 pages on 01 March"


@activity(name="completion.defer_atomic", atomic=True)
def defer_atomic(key: str) -> None:
    note(key, "tried")
    activity.defer()


@workflow(name="completion.misuse")
async def misuse() -> None:
    await defer_atomic(workflow.info().instance_id)


def test_an_atomic_activity_cannot_be_deferred(worker: Worker) -> None:
    handle = misuse.start()
    with pytest.raises(WorkflowFailed, match=r"completion\.defer_atomic is atomic and called activity\.defer\(\)"):
        handle.result(timeout=10)
    assert notes(handle.instance_id) == ["tried"], "a mistake is not tried again"


# The end of the instance


def test_cancelling_the_activity_deletes_its_task(worker: Worker) -> None:
    handle = publish.start()
    token = token_of(handle)
    eventually(is_deferred)
    handle.cancel()
    eventually(lambda: handle.status.is_closed)
    assert not ActivityTask.objects.exists()
    with pytest.raises(InstanceNotRunning, match="found it cancelled"):
        activity.complete(token, RESULT)


def test_terminating_the_instance_leaves_a_task_that_is_collected(worker: Worker) -> None:
    handle = publish.start()
    token = token_of(handle)
    eventually(is_deferred)
    handle.terminate()
    with pytest.raises(InstanceNotRunning, match="found it terminated"):
        activity.complete(token, RESULT)
    leftovers.sweep(Database())
    assert not ActivityTask.objects.exists()


def test_a_long_transaction_that_completes_delays_nobody(worker: Worker) -> None:
    """It only inserts: the workflow may be cancelled meanwhile, and its task deleted."""
    skip_without_row_locks()
    handle = publish.start()
    token = token_of(handle)
    eventually(is_deferred)
    with elsewhere(lambda: activity.complete(token, RESULT), end="commit"):
        handle.cancel()
        eventually(lambda: handle.status.is_closed)
        assert not ActivityTask.objects.exists()
    eventually(lambda: not InboxEvent.objects.exists())

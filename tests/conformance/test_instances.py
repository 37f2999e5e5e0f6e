"""Instances and the client: start, conflicts, arguments, handles."""

from __future__ import annotations

import uuid

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from django_workflows import (
    InstanceAlreadyExists,
    InstanceNotFound,
    InstanceNotRunning,
    InstanceStatus,
    PayloadError,
    PayloadTooLarge,
    Signal,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTerminated,
    activity,
    get_handle,
    registry,
    workflow,
)
from django_workflows.models import ActivityTask, InboxEvent, OpenInstance, WorkflowInstance
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect
from tests.testapp.workflows import greet

from .waiting import eventually, in_threads

go = Signal("go", str)


@workflow(name="instances.wait_for_go")
async def wait_for_go() -> str:
    return await go.receive()


@workflow(name="instances.echo")
async def echo(value: object, factor: float = 1.0) -> object:
    return value


@workflow(name="instances.fail")
async def fail() -> None:
    raise LookupError("no such order")


@activity(name="instances.length")
def length(text: str) -> int:
    return len(text)


@workflow(name="instances.measure")
async def measure(text: str) -> str:
    return text + str(await length(text))


@workflow(name="instances.double")
async def double(text: str) -> str:
    return text + text


def nothing_is_stored() -> bool:
    return not (WorkflowInstance.objects.exists() or OpenInstance.objects.exists() or InboxEvent.objects.exists())


# Start and result


def test_started_instance_is_running_with_a_waiting_event_until_a_worker_runs_it(cache_size: int) -> None:
    handle = greet.start("hello")

    assert handle.status is InstanceStatus.RUNNING
    assert [row.type for row in InboxEvent.objects.all()] == ["InstanceStarted"]
    assert handle.history() == []
    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "hello world"
    assert handle.status is InstanceStatus.COMPLETED
    assert not InboxEvent.objects.exists()
    assert [event.type for event in handle.history()] == [
        "InstanceStarted",
        "ActivityScheduled",
        "ActivityCompleted",
        "InstanceCompleted",
    ]


def test_failure_of_the_workflow_is_raised_by_result_with_its_cause(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed, match="no such order") as caught:
        fail.start().result(timeout=10)
    assert isinstance(caught.value.__cause__, LookupError)


def test_handle_from_the_id_alone_decodes_the_result(worker: Worker) -> None:
    greet.using(instance_id="by-id").start("hello")

    assert get_handle("by-id").result(timeout=10) == "hello world"


def test_result_times_out_and_leaves_the_instance_alone(worker: Worker) -> None:
    handle = wait_for_go.start()

    with pytest.raises(TimeoutError, match="still running"):
        handle.result(timeout=0.05)
    handle.signal(go, "late")
    assert handle.result(timeout=10) == "late"


def test_async_twins_do_what_the_sync_methods_do(worker: Worker) -> None:
    async def use_them() -> None:
        handle = await wait_for_go.using(instance_id="async").astart()
        assert await handle.astatus() is InstanceStatus.RUNNING
        with pytest.raises(TimeoutError):
            await handle.aresult(timeout=0.02)
        await handle.asignal(go, "yes")
        assert await handle.aresult(timeout=10) == "yes"
        assert (await handle.ahistory())[-1].type == "InstanceCompleted"
        assert (await handle.adescribe()).instance_id == "async"
        await handle.aremove()
        with pytest.raises(InstanceNotFound):
            await handle.astatus()

        cancelled = await wait_for_go.astart()
        await cancelled.acancel("not needed")
        with pytest.raises(WorkflowCancelled):
            await cancelled.aresult(timeout=10)
        terminated = await wait_for_go.astart()
        await terminated.aterminate("enough")
        with pytest.raises(WorkflowTerminated, match="enough"):
            await terminated.aresult(timeout=10)

    async_to_sync(use_them)()


def test_many_async_waiters_hold_no_thread_each(worker: Worker) -> None:
    """Two hundred waits at once, more than any thread pool has threads."""
    import asyncio

    async def wait_for_all() -> None:
        handles = [await wait_for_go.astart() for _ in range(200)]
        waits = [asyncio.create_task(handle.aresult(timeout=30)) for handle in handles]
        for number, handle in enumerate(handles):
            await handle.asignal(go, str(number))
        assert await asyncio.gather(*waits) == [str(number) for number in range(200)]

    async_to_sync(wait_for_all)()


# One open instance per id


def test_starting_an_open_id_is_refused_and_changes_nothing() -> None:
    wait_for_go.using(instance_id="order-1").start()

    with pytest.raises(InstanceAlreadyExists, match=r"'order-1'.*on_conflict"):
        wait_for_go.using(instance_id="order-1").start()
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == InboxEvent.objects.count() == 1


@pytest.mark.parametrize("round", range(5))
def test_of_threads_that_start_one_id_exactly_one_wins(round: int) -> None:
    answers = in_threads(*[wait_for_go.using(instance_id="raced").start] * 4)

    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(error) for error in errors] == [InstanceAlreadyExists] * 3
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == InboxEvent.objects.count() == 1


def test_threads_that_start_one_id_with_use_existing_all_get_the_one_instance() -> None:
    answers = in_threads(*[wait_for_go.using(instance_id="raced", on_conflict="use_existing").start] * 4)

    assert not [answer for answer in answers if isinstance(answer, BaseException)]
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == 1


def test_threads_that_start_one_id_with_terminate_existing_replace_each_other() -> None:
    replace = wait_for_go.using(instance_id="raced", on_conflict="terminate_existing")
    answers = in_threads(*[replace.start] * 4)

    assert not [answer for answer in answers if isinstance(answer, BaseException)], answers
    statuses = sorted(WorkflowInstance.objects.values_list("status", flat=True))
    assert statuses == ["running", "terminated", "terminated", "terminated"]
    assert OpenInstance.objects.count() == 1


def test_starts_that_race_with_the_close_of_the_old_instance_all_succeed(worker: Worker) -> None:
    """use_existing and terminate_existing have an answer whatever became of the instance they met."""
    for policy in ("use_existing", "terminate_existing"):
        start = echo.using(instance_id=f"closing-{policy}", on_conflict=policy).start
        for _ in range(10):
            answers = in_threads(*[lambda start=start: start("x")] * 3)  # type: ignore[misc]
            assert not [answer for answer in answers if isinstance(answer, BaseException)], answers


def test_use_existing_returns_the_open_instance_and_ignores_the_arguments() -> None:
    first = echo.using(instance_id="order-1").start("first")
    second = echo.using(instance_id="order-1", on_conflict="use_existing").start("second")

    assert second.describe().pk == first.describe().pk
    assert WorkflowInstance.objects.count() == 1
    with running_worker():
        assert second.result(timeout=10) == "first"


def test_terminate_existing_closes_the_open_instance_and_takes_its_place(worker: Worker) -> None:
    old = wait_for_go.using(instance_id="order-1").start()
    execution_id = old.describe().execution_id
    eventually(lambda: old.history())

    new = wait_for_go.using(instance_id="order-1", on_conflict="terminate_existing").start()

    with pytest.raises(WorkflowTerminated, match="replaced by a new start"):
        wait_for_go.handle("order-1", execution_id).result(timeout=10)
    new.signal(go, "new")
    assert new.result(timeout=10) == "new"


def test_unknown_conflict_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"on_conflict.*'ignore'"):
        wait_for_go.using(on_conflict="ignore").start()
    assert nothing_is_stored()


def test_closed_id_can_be_started_again_and_both_executions_stay_readable(worker: Worker) -> None:
    handle = echo.using(instance_id="order-1").start("first")
    assert handle.result(timeout=10) == "first"
    first = handle.describe().execution_id

    echo.using(instance_id="order-1").start("second")

    assert handle.result(timeout=10) == "second", "a handle follows the newest execution"
    bound = echo.handle("order-1", first)
    assert bound.execution_id == first
    assert bound.result(timeout=10) == "first"
    assert len(bound.history()) == len(handle.history()) == 2


def test_messages_of_a_bound_handle_do_not_reach_a_later_execution(worker: Worker) -> None:
    handle = wait_for_go.using(instance_id="order-1").start()
    handle.signal(go, "first")
    handle.result(timeout=10)
    bound = wait_for_go.handle("order-1", handle.describe().execution_id)
    wait_for_go.using(instance_id="order-1").start()

    for send in (lambda: bound.signal(go, "second"), bound.cancel, bound.terminate):
        with pytest.raises(InstanceNotRunning):
            send()
    assert handle.status is InstanceStatus.RUNNING


@pytest.mark.parametrize("ids", [("a", "A"), ("e", "é"), ("e\u0301", "é"), ("x", "x "), ("ß", "ss"), ("1", "\uff11")])
def test_ids_that_a_collation_finds_equal_are_different(ids: tuple[str, str], worker: Worker) -> None:
    handles = [echo.using(instance_id=instance_id).start(instance_id) for instance_id in ids]

    assert [handle.result(timeout=10) for handle in handles] == list(ids)
    assert [echo.handle(instance_id).describe().instance_id for instance_id in ids] == list(ids)


@pytest.mark.parametrize("bad", ["", "x" * 256, "a\x00b", "\ud800"])
def test_id_that_cannot_be_stored_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="instance_id"):
        echo.using(instance_id=bad).start("x")
    assert nothing_is_stored()


def test_id_of_255_characters_beyond_the_basic_plane_works() -> None:
    instance_id = "🛒" * 255
    assert echo.using(instance_id=instance_id).start(1).describe().instance_id == instance_id


def test_id_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"instance_id.*int"):
        echo.using(instance_id=17).start("x")


# Arguments


@pytest.mark.parametrize("args, kwargs", [((), {}), (("a", 1.0, 2), {}), (("a",), {"colour": "red"})])
def test_wrong_arguments_are_a_type_error_and_store_nothing(args: tuple[object, ...], kwargs: dict[str, str]) -> None:
    with pytest.raises(TypeError, match=r"instances\.echo\(\)"):
        echo.start(*args, **kwargs)  # type: ignore[arg-type]
    assert nothing_is_stored()


def test_keyword_arguments_and_defaults_reach_the_workflow(worker: Worker) -> None:
    assert echo.start(value="by name").result(timeout=10) == "by name"


def test_argument_that_is_no_data_is_refused_with_parameter_and_type() -> None:
    effect = Effect.objects.create(key="x")

    with pytest.raises(PayloadError, match=r"argument 'value' of instances\.echo: .*tests\.testapp\.models\.Effect"):
        echo.start(effect)
    assert nothing_is_stored()


@pytest.mark.parametrize(
    "value, reason",
    [
        ("a\x00b", "NUL"),
        (float("nan"), "nan"),
        ([float("inf")], "inf"),
        ({"a": "\ud800"}, "surrogate"),
        (2**65, "64 bits"),
    ],
)
def test_value_that_no_database_holds_is_refused_with_the_reason(value: object, reason: str) -> None:
    with pytest.raises(PayloadError, match=f"argument 'value' of instances.echo.*{reason}"):
        echo.start(value)
    assert nothing_is_stored()


@pytest.mark.parametrize("bad", ["a\x00b", float("nan"), "\ud800"])
def test_signal_value_that_no_database_holds_is_refused(bad: object) -> None:
    handle = wait_for_go.start()

    with pytest.raises(PayloadError, match="signal 'go'"):
        handle.signal(go, bad)  # type: ignore[arg-type]
    assert InboxEvent.objects.count() == 1


def test_value_of_a_megabyte_passes_through_arguments_activities_signals_and_results(worker: Worker) -> None:
    text = "é" * 500_000  # two bytes each

    assert measure.start(text).result(timeout=30) == text + "500000"
    handle = wait_for_go.start()
    handle.signal(go, text)
    assert handle.result(timeout=30) == text


@override_settings(DJANGO_WORKFLOWS={"MAX_PAYLOAD_BYTES": 1000})
def test_value_over_the_limit_is_refused_with_limit_and_setting(worker: Worker) -> None:
    with pytest.raises(PayloadTooLarge, match=r"instances\.echo.*limit of 1,000 bytes.*MAX_PAYLOAD_BYTES"):
        echo.start("x" * 1000)
    assert nothing_is_stored()
    handle = wait_for_go.start()
    with pytest.raises(PayloadTooLarge, match=r"signal 'go'.*MAX_PAYLOAD_BYTES"):
        handle.signal(go, "x" * 1000)
    with pytest.raises(WorkflowFailed, match=r"result of instances\.double.*MAX_PAYLOAD_BYTES"):
        double.start("x" * 900).result(timeout=10)


# Options of a start


def test_attributes_and_subject_are_stored_with_the_instance() -> None:
    effect = Effect.objects.create(key="x")
    handle = echo.using(subject=effect, attributes={"tier": "gold"}).start(1)

    assert handle.describe().attributes == {"tier": "gold"}
    assert [row.pk for row in WorkflowInstance.objects.for_subject(effect)] == [handle.describe().pk]


def test_unsaved_subject_is_refused() -> None:
    with pytest.raises(ValueError, match=r"saved object.*Effect"):
        echo.using(subject=Effect(key="x")).start(1)
    assert nothing_is_stored()


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        echo.using(colour="red")


# start_many


def test_start_many_starts_ten_thousand_in_few_statements(django_assert_max_num_queries: object) -> None:
    # SQLite allows 999 parameters a statement, so its rows go in many more batches.
    from django.db import connection

    most = 600 if connection.vendor == "sqlite" else 150
    with django_assert_max_num_queries(most):  # type: ignore[operator]
        handles = echo.start_many((number,) for number in range(10_000))

    assert len(handles) == 10_000
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == InboxEvent.objects.count() == 10_000
    assert handles[1234].describe().input.startswith("[[1234]")


def test_start_many_results_come_back_in_order(worker: Worker) -> None:
    handles = greet.start_many([(str(number),) for number in range(300)])

    assert [handle.result(timeout=60) for handle in handles] == [f"{number} world" for number in range(300)]


def test_start_many_is_all_or_nothing() -> None:
    echo.using(instance_id="b").start(0)

    with pytest.raises(InstanceAlreadyExists, match="'b'"):
        echo.start_many([(1,), (2,)], instance_ids=["a", "b"])
    with pytest.raises(InstanceAlreadyExists, match="twice"):
        echo.start_many([(1,), (2,)], instance_ids=["a", "a"])
    with pytest.raises(TypeError):
        echo.start_many([(1,), ()])
    with pytest.raises(PayloadError):
        echo.start_many([(1,), (float("nan"),)])
    with pytest.raises(ValueError, match="2 calls, found 1"):
        echo.start_many([(1,), (2,)], instance_ids=["a"])
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == 1


def test_of_threads_that_start_many_overlapping_ids_one_wins_whole() -> None:
    ids = [f"n-{number}" for number in range(50)]
    calls = [
        lambda: echo.start_many([(0,)] * 50, instance_ids=ids),
        lambda: echo.start_many([(1,)] * 50, instance_ids=reversed(ids)),
    ]
    answers = in_threads(*calls)

    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(error) for error in errors] == [InstanceAlreadyExists], errors
    assert WorkflowInstance.objects.count() == OpenInstance.objects.count() == InboxEvent.objects.count() == 50


# Unknown and closed instances


def test_unknown_id_is_not_found_by_anything_a_handle_can_do() -> None:
    handle = get_handle("nobody")

    for use in (
        lambda: handle.signal(go, "x"),
        handle.cancel,
        handle.terminate,
        handle.remove,
        handle.result,
        handle.history,
        handle.describe,
        lambda: handle.status,
    ):
        with pytest.raises(InstanceNotFound, match="'nobody'"):
            use()
    assert nothing_is_stored()


def test_unknown_execution_of_a_known_id_is_not_found() -> None:
    echo.using(instance_id="known").start(1)

    with pytest.raises(InstanceNotFound, match=r"'known'.*execution_id"):
        get_handle("known", uuid.uuid4().hex).describe()


def test_closed_instance_takes_no_messages(worker: Worker) -> None:
    handle = echo.start(1)
    handle.result(timeout=10)
    before = handle.history()

    for send in (lambda: handle.signal(go, "x"), handle.cancel, handle.terminate):
        with pytest.raises(InstanceNotRunning, match="completed"):
            send()
    assert not InboxEvent.objects.exists()
    assert handle.history() == before


def test_terminate_closes_at_once_and_keeps_the_reason(worker: Worker) -> None:
    handle = wait_for_go.start()
    eventually(handle.history)

    handle.terminate("customer left")

    assert handle.status is InstanceStatus.TERMINATED
    assert handle.history()[-1].data["reason"] == "customer left"
    with pytest.raises(WorkflowTerminated, match="customer left"):
        handle.result()


def test_terminate_of_an_instance_that_no_worker_saw_leaves_nothing_to_run(cache_size: int) -> None:
    handle = wait_for_go.start()
    handle.terminate()

    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: not InboxEvent.objects.exists())
    assert [event.type for event in handle.history()] == ["InstanceTerminated"]


# What a worker does not know


def test_unknown_workflow_is_blocked_with_the_reason_and_runs_on_where_it_is_known(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = wait_for_go.start()
    handle.signal(go, "known")
    with monkeypatch.context() as patch:
        patch.delitem(registry.workflows._definitions, wait_for_go.name)
        with running_worker(sticky_cache_size=cache_size):
            eventually(lambda: handle.status is InstanceStatus.BLOCKED)
            # Another instance is not concerned.
            assert greet.start("hello").result(timeout=10) == "hello world"
            with pytest.raises(TimeoutError, match="blocked"):
                handle.result(timeout=0)
        failure = handle.describe().failure
        assert failure is not None and "instances.wait_for_go" in failure and "UnknownWorkflowError" in failure
        assert handle.history() == []

    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "known"
    assert handle.describe().failure is None


def test_blocked_instance_runs_on_by_itself_on_the_worker_that_blocked_it(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delitem(registry.workflows._definitions, echo.name)
        with running_worker(sticky_cache_size=cache_size):
            handle = echo.start("x")
            eventually(lambda: handle.status is InstanceStatus.BLOCKED)
            patch.undo()
            assert handle.result(timeout=10) == "x"


def test_blocked_instance_can_be_terminated_and_leaves_no_row(monkeypatch: pytest.MonkeyPatch, cache_size: int) -> None:
    monkeypatch.delitem(registry.workflows._definitions, wait_for_go.name)
    handle = wait_for_go.start()
    with running_worker(sticky_cache_size=cache_size):
        eventually(lambda: handle.status is InstanceStatus.BLOCKED)
        # Parked: out of the range of the workers' polls.
        eventually(lambda: not InboxEvent.objects.filter(queue__isnull=False).exists())
        handle.terminate("gone for good")
    assert handle.status is InstanceStatus.TERMINATED


def test_activity_that_nobody_knows_waits_for_a_worker_that_does(
    cache_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = measure.start("four")
    with monkeypatch.context() as patch:
        patch.delitem(registry.activities._definitions, length.name)
        with running_worker(sticky_cache_size=cache_size):
            task = eventually(ActivityTask.objects.first)
            # It lets others pass.
            assert greet.start("hello").result(timeout=10) == "hello world"
        task.refresh_from_db()
        assert (task.name, task.attempt, task.owner_id) == (length.name, 0, None)
        assert task.available_at is not None
        assert handle.status is InstanceStatus.RUNNING

    with running_worker(sticky_cache_size=cache_size):
        assert handle.result(timeout=10) == "four4"

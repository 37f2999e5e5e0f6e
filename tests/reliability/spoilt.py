"""Ways to spoil the rows of an instance of tests/reliability/hostile.py, by table, and what may become of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.utils import timezone

from django_workflows.models import (
    ActivityTask,
    HistoryEvent,
    InboxEvent,
    OpenInstance,
    Timer,
    WorkflowInstance,
    WorkflowUpdate,
)
from django_workflows.retries import RetryPolicy

Spoil = Callable[[WorkflowInstance], object]


class Case(NamedTuple):
    """What is wrong, how it comes about, and the statuses of which the instance has one then."""

    name: str
    spoil: Spoil
    becomes: str


DEEP = "[" * 100_000
GARBAGE = {"empty": "", "cut off": '{"na', "no object": "[1, 2]", "deep": f'{{"failure": {DEEP}', "number": "9" * 5000}
BEYOND = 10**30  # any integer column
WRONG_RESULT = '{"command": 2, "result": {"a": 1}}'
NOWHERE = 10**15
LAST_INTEGER, LAST_SMALL_INTEGER = 2**31 - 1, 2**15 - 1  # of their columns
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
AT_THE_END_OF_TIME = datetime(9999, 12, 31, 23, tzinfo=UTC)


def instance(**columns: Any) -> Spoil:
    return lambda row: WorkflowInstance.objects.filter(pk=row.pk).update(**columns)


def opened(**columns: Any) -> Spoil:
    return lambda row: OpenInstance.objects.filter(instance_id=row.pk).update(**columns)


def event(number: int, **columns: Any) -> Spoil:
    return lambda row: HistoryEvent.objects.filter(instance_id=row.pk, sequence=number).update(**columns)


def without_events(*numbers: int) -> Spoil:
    return lambda row: HistoryEvent.objects.filter(instance_id=row.pk, sequence__in=numbers).delete()


def one_more_event(number: int) -> Spoil:
    return lambda row: HistoryEvent.objects.create(
        instance_id=row.pk, sequence=number, type="SignalReceived", time=timezone.now(), data='{"name": "x"}'
    )


def blocked(tries: int) -> Spoil:
    """Have an instance be due for another try, which fails, after so many."""

    def spoil(row: WorkflowInstance) -> None:
        instance(input="")(row)
        opened(blocks=tries)(row)
        Timer.objects.create(instance_id=row.pk, command=0, chain_id=row.chain, fire_at=LONG_AGO, wake_at=LONG_AGO)

    return spoil


def inbox(type: str, data: str, *, bound: bool = False) -> Spoil:
    return lambda row: InboxEvent.objects.create(
        chain_id=row.chain, instance_id=row.pk if bound else None, type=type, data=data, queue=row.queue
    )


def order(**fields: Any) -> Spoil:
    """Order the start of a child that the code never asked for."""
    child = {"command": 9, "name": "x", "input": [], "queue": "q", "execution_id": "x", "instance_id": "x"}
    return inbox("ChildScheduled", json.dumps(child | fields), bound=True)


def fails_again(attempt: int) -> Spoil:
    """Have an attempt fail that is tried again."""

    def spoil(row: WorkflowInstance) -> None:
        instance(attempt=attempt, options=json.dumps({"retry": RetryPolicy().to_json()}))(row)
        inbox("ActivityCompleted", WRONG_RESULT)(row)

    return spoil


def task(**columns: Any) -> Spoil:
    """Spoil a task that nobody served, and bring it to the worker."""
    return lambda row: ActivityTask.objects.filter(instance_id=row.pk).update(**{"queue": "default"} | columns)


def options(**fields: Any) -> str:
    """Return the options of a task as text."""
    return json.dumps({"retry": RetryPolicy(max_attempts=1).to_json()} | fields)


def timer(**columns: Any) -> Spoil:
    return lambda row: Timer.objects.filter(instance_id=row.pk).update(**columns)


def update(**columns: Any) -> Spoil:
    return lambda row: WorkflowUpdate.objects.filter(chain_id=row.chain).update(**columns)


def each(spoil: Callable[..., Spoil], column: str, becomes: str) -> list[Case]:
    return [Case(f"{column}: {name}", spoil(**{column: text}), becomes) for name, text in GARBAGE.items()]


INSTANCE = [
    *each(instance, "input", "blocked"),
    *each(instance, "options", "blocked"),
    Case("options of the future", instance(options='{"class": 7, "context": {"x": 1}}'), "completed"),
    Case("options of wrong types", instance(options='{"parent_close": "burn"}'), "blocked"),
    Case("attributes are a list", instance(attributes=[1]), "blocked"),
    Case("attributes are text", instance(attributes="text"), "blocked"),
    Case("attributes are a number", instance(attributes=7), "blocked"),
    Case("unknown workflow", instance(name="no.such.workflow"), "blocked"),
    Case("unknown status", instance(status="hibernating"), "completed"),
    Case("parent nowhere", instance(parent_id=NOWHERE, parent_command=3, root_id=NOWHERE), "completed"),
    Case("subject nowhere", instance(subject_type_id=2**31 - 1, subject_pk="17"), "completed"),
    Case("failure is garbage", instance(failure=DEEP), "completed"),
    Case("result before the end", instance(result=DEEP), "completed"),
    Case("tried as often as can be counted", fails_again(LAST_INTEGER), "blocked failed"),
    Case("started at the end of time", instance(created_at=AT_THE_END_OF_TIME), "completed"),
]
OPEN = [
    Case("history shorter than told", opened(history_length=9), "blocked"),
    Case("history longer than told", opened(history_length=3), "blocked"),
    Case("history of negative length", opened(history_length=-1), "blocked"),
    Case("owner nowhere", opened(owner_id=NOWHERE), "completed"),
    Case("blocked for a day", blocked(1500), "blocked"),
    Case("blocked as often as can be counted", blocked(LAST_SMALL_INTEGER), "blocked"),
    Case(
        "crashed as often as can be counted", opened(crashes=LAST_SMALL_INTEGER), "blocked completed"
    ),  # which is tried again
]
HISTORY = [
    *[Case(f"data: {name}", event(3, data=text), "blocked") for name, text in GARBAGE.items()],
    Case("unknown type", event(5, type="FromTheFuture"), "blocked"),
    Case("unknown fields", event(1, data='{"suggest_at": 0, "colour": {"a": [1]}}'), "completed"),
    Case("wrong types", event(3, data='{"command": "two", "name": 7}'), "blocked"),
    Case("another decision", event(3, data='{"command": 2, "name": "x", "input": [], "queue": "q"}'), "blocked"),
    Case("number beyond", event(4, data=f'{{"command": {BEYOND}, "fire_at": "2026-01-01T00:00:00Z"}}'), "blocked"),
    Case("first event missing", without_events(1), "blocked"),
    Case("last event missing", without_events(5), "blocked"),
    Case("event in the middle missing", without_events(4), "blocked"),
    Case("all events missing", without_events(1, 2, 3, 4, 5), "blocked"),
    Case("gap", event(5, sequence=7), "blocked"),
    Case("begins before the first", event(5, sequence=0), "blocked"),
    Case("one event more", one_more_event(6), "blocked"),
    Case("one event more, behind a gap", one_more_event(8), "blocked"),
]
INBOX = [
    *[Case(f"data: {name}", inbox("SignalReceived", text), "blocked") for name, text in GARBAGE.items()],
    Case("deep value", inbox("SignalReceived", f'{{"name": "x", "value": {DEEP}'), "blocked"),
    Case("unknown type", inbox("FromTheFuture", "{}"), "blocked"),
    Case("unknown fields", inbox("SignalReceived", '{"name": "x", "by": {"user": 7}}'), "completed"),
    Case("no input event", inbox("InstanceCompleted", '{"command": 1, "result": 1}'), "blocked"),
    Case("outcome of no command", inbox("ActivityCompleted", '{"command": 77}'), "completed"),
    Case("outcome of command beyond", inbox("TimerFired", f'{{"command": {BEYOND}}}'), "completed"),
    Case("by token", inbox("ActivityCompleted", f'{{"command": {BEYOND}, "deferred": true}}'), "blocked completed"),
    Case("outcome of another kind", inbox("ChildStarted", '{"command": 3}'), "completed"),
    Case("wrong type", inbox("ActivityCompleted", WRONG_RESULT), "failed"),
    Case("second start", inbox("InstanceStarted", "{}"), "completed"),
    Case("order without an id", order(instance_id=""), "completed"),
    Case("order with an endless name", order(name="x" * 5000), "completed"),
    Case("order with a subject nowhere", order(subject=["no.model", "1"]), "completed"),
    Case(
        "update nowhere", inbox("UpdateRequested", '{"update_id": "x", "name": "ask", "input": [[],{}]}'), "completed"
    ),
    Case(
        "id of no letters", inbox("UpdateRequested", '{"update_id": "\\u00e9", "name": "ask", "input": 1}'), "completed"
    ),
    Case("id of brackets", inbox("UpdateRequested", '{"update_id": "},\\"", "name": "ask", "input": 1}'), "completed"),
    Case("start of nothing", inbox("SignalWithStart", '{"name": "x", "value": 1, "start": {"name": 7}}'), "completed"),
]
TASK = [
    *each(task, "options", "failed"),
    *each(task, "input", "failed"),
    *[
        Case(f"{limit} is {value!r}", task(options=options(**{limit: value})), "failed")
        for limit in ("schedule_to_start", "start_to_close", "schedule_to_close", "heartbeat")
        for value in ("soon", None, 1e300, -1, [])
    ],
    Case("unknown options", task(options=options(colour={"a": 1})), "completed"),
    Case("context of a wrong type", task(options=options(context=7)), "failed"),
    Case("heartbeat", task(heartbeat=DEEP), "completed"),
    Case("last failure", task(last_failure=DEEP), "completed"),
    Case("owner nowhere", task(owner_id=NOWHERE, available_at=None), "completed"),
    Case("owner nowhere, garbage", task(owner_id=NOWHERE, available_at=None, options=options(heartbeat="x")), "failed"),
    Case("expired, garbage", task(expires_at=LONG_AGO, options=options(schedule_to_close="x")), "failed"),
    Case("expired without a limit", task(expires_at=LONG_AGO), "failed"),
    Case("tried as often as can be counted", task(attempt=LAST_INTEGER), "completed"),
    Case("crashed as often as can be counted", task(crashes=LAST_SMALL_INTEGER), "failed"),
    Case("of no command", task(command=77), "completed"),
    Case("of no instance", task(instance_id=NOWHERE), "completed"),
    Case("of no chain", task(chain_id=NOWHERE), "completed"),
    Case("scheduled late", task(scheduled_at=AT_THE_END_OF_TIME, options=options(schedule_to_close=1e9)), "completed"),
]
TIMER = [
    Case("due, of no command", timer(command=77, wake_at=LONG_AGO), "completed"),
    Case("due too early", timer(wake_at=LONG_AGO), "completed"),
    Case("of no instance", timer(instance_id=NOWHERE, wake_at=LONG_AGO), "completed"),
    Case("of no chain", timer(chain_id=NOWHERE, wake_at=LONG_AGO), "completed"),
    Case("of a blocked instance", timer(command=0), "completed"),
    Case("of a negative command", timer(command=-5, wake_at=LONG_AGO), "completed"),
    Case("at the end of time", timer(fire_at=AT_THE_END_OF_TIME, wake_at=AT_THE_END_OF_TIME), "completed"),
]
UPDATE = [
    *each(update, "input", "completed"),
    *each(update, "result", "completed"),
    *each(update, "failure", "completed"),
    Case("unknown status", update(status="pondered"), "completed"),
    Case("of no chain", update(chain_id=NOWHERE), "completed"),
    Case("without a name", update(name=""), "completed"),
]
TABLES = {
    "instance": INSTANCE, "open": OPEN, "history": HISTORY, "inbox": INBOX, "task": TASK, "timer": TIMER,
    "update": UPDATE,
}  # fmt: skip

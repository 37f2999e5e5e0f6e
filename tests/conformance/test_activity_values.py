"""What may be passed to an activity and returned by it, and how its signature is enforced."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypedDict
from uuid import UUID

import pytest

from django_workflows import (
    NotInWorkflowError,
    PayloadError,
    RegistrationError,
    RetryPolicy,
    WorkflowFailed,
    activity,
    register_activities,
    workflow,
)
from django_workflows.worker.worker import Worker

ONCE = RetryPolicy(max_attempts=1)


class Colour(Enum):
    RED = "red"


@dataclass
class Address:
    street: str
    tags: set[str] = field(default_factory=set)
    forward_to: Address | None = None


class Line(TypedDict):
    sku: str
    count: int


VALUES: dict[str, tuple[Any, Any]] = {
    "dataclass": (Address, Address("High St", {"home"}, Address("Low St"))),
    "typed_dict": (Line, {"sku": "tea", "count": 2}),
    "enum": (Colour, Colour.RED),
    "datetime": (datetime, datetime(2026, 3, 1, 12, 30, 5, 123456, tzinfo=UTC)),
    "date": (date, date(2026, 3, 1)),
    "timedelta": (timedelta, timedelta(days=1, microseconds=5)),
    "decimal": (Decimal, Decimal("12.340")),
    "uuid": (UUID, UUID("12345678-1234-5678-1234-567812345678")),
    "set": (set[int], {1, 2, 3}),
    "tuple": (tuple[int, str], (1, "one")),
    "bytes": (bytes, b"\x00\xff"),
    "none": (None, None),
    "text": (str, "naïve 🦉"),
    "nested": (dict[str, list[Address | None]] | None, {"a": [Address("x"), None], "b": []}),
}


def _same(found: Any, expected: Any) -> bool:
    return type(found) is type(expected) and bool(found == expected)


def _make_echoes(kind: str, annotation: Any, expected: Any) -> list[Any]:
    def echo(value: Any) -> Any:
        if not _same(value, expected):
            raise TypeError(f"expected {expected!r}, found {value!r}")
        return value

    async def async_echo(value: Any) -> Any:
        return echo(value)

    for function in (echo, async_echo):
        function.__annotations__ = {"value": annotation, "return": annotation}
    return [
        activity(name=f"values.{kind}", retry=ONCE)(echo),
        activity(name=f"values.async_{kind}", retry=ONCE)(async_echo),
    ]


ECHOES = {kind: _make_echoes(kind, *entry) for kind, entry in VALUES.items()}


@workflow(name="values.roundtrip")
async def roundtrip() -> dict[str, list[str]]:
    """Return what came back wrong, by kind."""
    wrong: dict[str, list[str]] = {}
    for kind, (_, expected) in VALUES.items():
        found = await asyncio.gather(*(echo(expected) for echo in ECHOES[kind]))
        if not all(_same(value, expected) for value in found):
            wrong[kind] = [repr(value) for value in found]
    return wrong


def test_arguments_and_results_have_their_annotated_types(worker: Worker) -> None:
    assert roundtrip.start().result(timeout=20) == {}


@activity(name="values.describe")
def describe(first: int, second: str = "two", *rest: int, third: float = 3.0, **more: int) -> str:
    return f"{first} {second} {rest} {third} {sorted(more.items())}"


@workflow(name="values.call_in_all_ways")
async def call_in_all_ways() -> list[str]:
    return [
        await describe(1),
        await describe(first=1, second="b"),
        await describe(1, "b", 7, 8, third=0.5, extra=9),
        await describe.using(retry=ONCE)(1, third=2.0),
    ]


def test_keyword_arguments_and_defaults(worker: Worker) -> None:
    assert call_in_all_ways.start().result(timeout=10) == [
        "1 two () 3.0 []",
        "1 b () 3.0 []",
        "1 b (7, 8) 0.5 [('extra', 9)]",
        "1 two () 2.0 []",
    ]


class Ledger:
    """One object with the state that its activities share."""

    def __init__(self) -> None:
        self.balance = 0

    @activity.method(name="values.deposit")
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @activity.method(name="values.withdraw")
    async def withdraw(self, amount: int, *, note: str = "") -> str:
        self.balance -= amount
        return f"{self.balance}{note}"


class Unprovided:
    @activity.method(name="values.unprovided")
    def act(self) -> None: ...


ledger = Ledger()
register_activities(ledger)


@workflow(name="values.use_methods")
async def use_methods() -> list[Any]:
    return [await Ledger.deposit(10), await Ledger.deposit(5), await Ledger.withdraw(3, note="!")]


def test_methods_share_the_state_of_their_object(worker: Worker) -> None:
    ledger.balance = 0
    assert use_methods.start().result(timeout=10) == [10, 15, "12!"]
    balance: object = ledger.deposit(1)  # on the object it is the plain method
    assert balance == 13


def test_another_object_of_the_same_class_is_refused() -> None:
    with pytest.raises(RegistrationError, match=r"values\.deposit"):
        register_activities(Ledger())
    with pytest.raises(RegistrationError, match="object"):
        register_activities(object())


@workflow(name="values.wrong_arguments")
async def wrong_arguments(handled: bool) -> str:
    try:
        await describe()  # type: ignore[call-arg]
    except TypeError as error:
        if handled:
            return str(error)
        raise
    return "called"


@workflow(name="values.wrong_value")
async def wrong_value() -> None:
    await describe(1, second=object())  # type: ignore[arg-type]


def test_wrong_arguments_are_an_error_at_the_call(worker: Worker) -> None:
    assert "values.describe() missing a required argument: 'first'" in wrong_arguments.start(True).result(timeout=10)


def test_wrong_arguments_fail_the_workflow_and_name_the_activity(worker: Worker) -> None:
    handle = wrong_arguments.start(False)
    with pytest.raises(WorkflowFailed, match=r"values\.describe\(\) missing a required argument: 'first'") as caught:
        handle.result(timeout=10)
    assert isinstance(caught.value.__cause__, TypeError)
    assert [event.type for event in handle.history()] == ["InstanceStarted", "InstanceFailed"]


def test_an_argument_that_cannot_be_stored_is_named(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed, match=r"'second' of values\.describe.*object") as caught:
        wrong_value.start().result(timeout=10)
    assert isinstance(caught.value.__cause__, PayloadError)


def test_a_call_outside_a_workflow_names_what_to_use() -> None:
    with pytest.raises(NotInWorkflowError, match=r"values\.describe.*\.call\("):
        describe(1)  # type: ignore[unused-coroutine]
    assert describe.call(1) == "1 two () 3.0 []"


@activity(name="values.wrong_result", retry=ONCE)
def wrong_result() -> object:
    return object()


@workflow(name="values.receive_wrong_result")
async def receive_wrong_result() -> None:
    await wrong_result()


def test_a_result_that_cannot_be_stored_fails_the_activity(worker: Worker) -> None:
    with pytest.raises(WorkflowFailed, match=r"the result of values\.wrong_result"):
        receive_wrong_result.start().result(timeout=10)

"""Retries follow the policy: how many, how far apart, and which exceptions end them."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflows.exceptions import ActivityError, ObjectNotFound
from django_workflows.failures import Failure
from django_workflows.retries import DEFAULT_RETRY, RetryPolicy


class PaymentError(Exception):
    pass


class CardDeclined(PaymentError):
    pass


DOTTED = f"{PaymentError.__module__}.PaymentError"

durations = st.timedeltas(timedelta(0), timedelta(days=36_525))
policies = st.builds(
    lambda attempts, intervals, backoff, jitter, names: RetryPolicy(
        attempts, min(intervals), backoff, max(intervals), jitter, tuple(names)
    ),
    st.none() | st.integers(1),
    st.tuples(durations, durations),
    st.floats(1, 1e6),
    st.floats(0, 1),
    st.lists(st.text(min_size=1) | st.sampled_from([KeyError, CardDeclined])),
)


def test_pauses_grow_by_the_backoff_up_to_the_longest() -> None:
    policy = RetryPolicy(initial_interval=timedelta(seconds=2), backoff=3, max_interval=timedelta(seconds=20))

    assert [policy.delay_after(attempt).total_seconds() for attempt in (1, 2, 3, 4)] == [2, 6, 18, 20]


@given(policies, st.integers(1, 10**400), st.none() | st.randoms(use_true_random=False))
def test_every_pause_lies_between_zero_and_the_longest(
    policy: RetryPolicy, attempt: int, random: Random | None
) -> None:
    assert timedelta(0) <= policy.delay_after(attempt, random) <= policy.max_interval


@given(st.floats(0, 1), st.randoms(use_true_random=False))
def test_jitter_shortens_a_pause_by_at_most_its_share(jitter: float, random: Random) -> None:
    policy = RetryPolicy(initial_interval=timedelta(seconds=100), jitter=jitter)

    delay = policy.delay_after(1, random).total_seconds()

    assert 100 * (1 - jitter) - 0.001 <= delay <= 100


def test_jitter_spreads_retries() -> None:
    policy, random = RetryPolicy(jitter=1.0), Random(1)

    assert len({policy.delay_after(1, random) for _ in range(20)}) == 20


def test_attempts_are_counted_from_one_and_end_at_the_maximum() -> None:
    policy = RetryPolicy(max_attempts=3)

    assert [policy.may_retry(ValueError(), attempt) for attempt in (1, 2, 3, 4)] == [True, True, False, False]
    assert not RetryPolicy(max_attempts=1).may_retry(ValueError(), 1)
    assert RetryPolicy().may_retry(ValueError(), 10**9)
    with pytest.raises(ValueError, match="attempt: expected 1 or more, found 0"):
        policy.delay_after(0)


def test_default_is_three_attempts_one_second_apart() -> None:
    assert DEFAULT_RETRY.max_attempts == 3
    assert DEFAULT_RETRY.delay_after(1) == timedelta(seconds=1)


def through_json(policy: RetryPolicy) -> RetryPolicy:
    return RetryPolicy.from_json(json.loads(json.dumps(policy.to_json())))


@pytest.mark.parametrize("entry", [PaymentError, "PaymentError", DOTTED, CardDeclined, "CardDeclined"], ids=str)
@pytest.mark.parametrize("stored", [False, True])
def test_non_retryable_class_or_name_matches_subclasses(entry: Any, stored: bool) -> None:
    policy = RetryPolicy(non_retryable=(entry,))
    policy = through_json(policy) if stored else policy

    assert not policy.may_retry(CardDeclined(), 1)
    assert not policy.may_retry(Failure.of(CardDeclined()), 1)
    assert policy.may_retry(PaymentError(), 1) is (entry in (CardDeclined, "CardDeclined"))
    assert policy.may_retry(ValueError("PaymentError"), 1)


def test_name_of_a_class_that_is_not_loaded_matches_its_failure() -> None:
    policy = RetryPolicy(non_retryable=("Oops",))

    assert not policy.may_retry(Failure(type="not.loaded.Oops", message=""), 1)
    assert not policy.may_retry(ActivityError("not.loaded.Oops", ""), 1)
    assert policy.may_retry(Failure(type="not.loaded.Other", message=""), 1)


def test_cancellation_is_never_retried() -> None:
    assert not RetryPolicy().may_retry(asyncio.CancelledError(), 1)
    assert not RetryPolicy().may_retry(Failure.of(asyncio.CancelledError()), 1)


def test_activity_whose_object_is_gone_is_never_tried_again() -> None:
    gone = ObjectNotFound("shop.order", 17, "the arguments of shop.charge")

    assert not RetryPolicy().may_retry(gone, 1)
    assert not RetryPolicy().may_retry(Failure.decode(Failure.of(gone).encode()), 1)


def test_failure_marked_non_retryable_is_not_retried() -> None:
    assert not RetryPolicy().may_retry(Failure.of(ValueError(), non_retryable=True), 1)


class Futile(Exception):
    non_retryable = True


class SlowDown(Exception):
    def __init__(self, delay: object) -> None:
        super().__init__()
        self.next_retry_delay = delay


def test_an_exception_may_rule_out_another_attempt() -> None:
    single = ValueError()
    single.non_retryable = True  # type: ignore[attr-defined]
    for error in (Futile(), single, ExceptionGroup("many", [ValueError(), Futile()])):
        assert not RetryPolicy().may_retry(error, 1)
        assert not RetryPolicy().may_retry(Failure.of(error), 1)
    refusal = Futile()
    refusal.non_retryable = False
    assert RetryPolicy().may_retry(refusal, 1)


@pytest.mark.parametrize("delay", [timedelta(minutes=5), 300, 300.0])
def test_an_exception_may_set_the_pause_before_the_next_attempt(delay: object) -> None:
    policy = RetryPolicy(max_interval=timedelta(seconds=1), jitter=1)

    for error in (SlowDown(delay), Failure.of(SlowDown(delay))):
        assert policy.pause_after(error, 1, Random(0)) == timedelta(minutes=5)
    assert policy.pause_after(SlowDown(0), 1) == timedelta(0)
    assert policy.pause_after(SlowDown(None), 1) == policy.pause_after(ValueError(), 1) == timedelta(seconds=1)


@pytest.mark.parametrize("delay", ["soon", -1, float("nan"), float("inf"), timedelta(days=40_000), object()])
def test_an_impossible_pause_is_logged_and_the_policys_taken(delay: object, caplog: pytest.LogCaptureFixture) -> None:
    assert RetryPolicy().pause_after(SlowDown(delay), 1) == timedelta(seconds=1)
    assert "expected next_retry_delay" in caplog.text


def test_an_exception_whose_attributes_raise_is_retried_as_the_policy_says() -> None:
    class Hostile(Exception):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    assert RetryPolicy().may_retry(Hostile(), 1)
    assert RetryPolicy().pause_after(Hostile(), 1) == timedelta(seconds=1)


def test_group_is_retried_only_if_every_member_may_be() -> None:
    policy = RetryPolicy(non_retryable=(CardDeclined,))

    cases: list[tuple[list[Exception], bool]] = [([ValueError()], True), ([ValueError(), CardDeclined()], False)]
    for members, expected in cases:
        group = ExceptionGroup("many", members)
        assert policy.may_retry(group, 1) is expected
        assert policy.may_retry(Failure.of(group), 1) is expected


@given(policies)
def test_policy_survives_json(policy: RetryPolicy) -> None:
    again = through_json(policy)

    assert again.to_json() == policy.to_json()
    assert (again.initial_interval, again.max_interval) == (policy.initial_interval, policy.max_interval)
    assert through_json(again) == again


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_attempts": 0}, "max_attempts=...): expected an int of 1 or more, or None for no limit, found 0"),
        ({"max_attempts": 1.5}, "found 1.5"),
        ({"initial_interval": 5}, "expected a timedelta from 0 to 100 years, such as timedelta(seconds=5), found 5"),
        ({"initial_interval": timedelta(seconds=-1)}, "initial_interval"),
        ({"max_interval": timedelta.max}, "max_interval"),
        ({"initial_interval": timedelta(hours=1)}, "max_interval=...): expected at least initial_interval (1:00:00)"),
        ({"backoff": 0.5}, "backoff=...): expected a number of 1 or more, found 0.5"),
        ({"backoff": float("nan")}, "backoff"),
        ({"backoff": float("inf")}, "backoff"),
        ({"jitter": 1.1}, "jitter=...): expected a number from 0 to 1, found 1.1"),
        ({"non_retryable": "CardDeclined"}, "expected a tuple of exception classes and class names"),
        ({"non_retryable": CardDeclined}, "such as (CardDeclined,)"),
        ({"non_retryable": (int,)}, "found <class 'int'>"),
    ],
)
def test_wrong_policy_is_refused_with_expected_and_found(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        RetryPolicy(**options)

    assert expected in str(caught.value)

"""The options of activities: what is accepted, and what is stored of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_workflows import activity
from django_workflows.registry import TIMEOUTS, ActivityOptions

SECOND = timedelta(seconds=1)


def test_only_what_is_set_is_stored() -> None:
    assert set(ActivityOptions().stored) == {"retry"}
    options = ActivityOptions(**{f"{name}_timeout": SECOND / 2 for name in TIMEOUTS})
    assert {name: options.stored[name] for name in TIMEOUTS} == dict.fromkeys(TIMEOUTS, 0.5)


@pytest.mark.parametrize("name", [f"{name}_timeout" for name in TIMEOUTS])
@pytest.mark.parametrize(
    ("timeout", "error"),
    [(30, TypeError), ("1m", TypeError), (timedelta(0), ValueError), (-SECOND, ValueError),
     (timedelta(days=40_000), ValueError)],
)  # fmt: skip
def test_a_timeout_that_is_none_is_refused_with_its_name(name: str, timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"expected {name} to be a timedelta above 0.*found"):
        ActivityOptions(**{name: timeout})


def test_using_checks_and_replaces_single_options() -> None:
    @activity(name="options.anything", start_to_close_timeout=SECOND, heartbeat_timeout=SECOND)
    def anything() -> None: ...

    changed = anything.using(heartbeat_timeout=None, queue="other").options
    assert (changed.start_to_close_timeout, changed.heartbeat_timeout, changed.queue) == (SECOND, None, "other")
    with pytest.raises(TypeError, match="start_to_close"):
        anything.using(start_to_close_timeout=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="colour"):
        anything.using(colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="retry"):
        anything.using(retry=None)  # type: ignore[arg-type]

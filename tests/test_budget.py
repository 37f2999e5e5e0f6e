"""How long recurring work rests."""

from __future__ import annotations

import math

import pytest

from django_workflows.worker.budget import rest_after


@pytest.mark.parametrize(
    ("cost", "rest"),
    [
        pytest.param(0.0, 1.0, id="quick work is done once per interval"),
        pytest.param(0.1, 10.0, id="slow work takes its share of the time"),
        pytest.param(12.0, 30.0, id="a process that stood still does not rest for long"),
    ],
)
def test_work_takes_no_more_than_its_share(cost: float, rest: float) -> None:
    assert rest_after(cost, share=0.01, shortest=1.0) == rest


def test_work_without_a_share_is_done_once_per_interval() -> None:
    assert rest_after(12.0, share=math.inf, shortest=60.0) == 60.0

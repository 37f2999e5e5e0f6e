from __future__ import annotations

from .quarter import check_quarter


def test_nothing_is_violated() -> None:
    check_quarter(3)

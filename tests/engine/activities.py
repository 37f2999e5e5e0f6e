"""Activities that the engine's tests schedule; the harness runs them in place."""

from __future__ import annotations

from typing import Any

from django_workflows import activity


class CardDeclined(Exception):
    """An error of the application."""


@activity
def echo(value: Any = None) -> Any:
    return value


@activity
def double(number: int) -> int:
    return 2 * number


@activity
def charge(order_id: int, *, cents: int = 100) -> str:
    return f"{order_id}:{cents}"


@activity
def decline(message: str = "no") -> None:
    raise CardDeclined(message)


@activity
def clean_up(what: str = "") -> None:
    pass

"""A stand-in for a payment service: it answers the same key with the same receipt."""

from __future__ import annotations


class CardDeclined(Exception):
    """The card is refused, now and later."""


def charge(key: str, cents: int) -> str:
    if cents > 1_000_000:
        raise CardDeclined("the card's limit is lower")
    return f"receipt of {key}"


def refund(key: str) -> bool:
    return True

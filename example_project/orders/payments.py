"""A pretend payment gateway: deterministic, as unreliable as the card says, and idempotent by key.

It keeps its books in a table of its own and commits them by itself, as a service behind HTTP would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

from .models import GatewayCharge, Order

FAILURES = {Order.Card.FLAKY: 2, Order.Card.OUTAGE: 1_000_000}  # how many first attempts fail, by card


class CardDeclined(Exception):
    """The bank said no; trying again is of no use."""


class GatewayUnavailable(Exception):
    """The gateway did not answer; trying again may help."""


def charge(key: str, card: str, cents: int) -> str:
    """Charge a card once per key and return the receipt, the same one for every repetition of the call."""
    with _record(key) as record:
        if record.state == GatewayCharge.State.PENDING:
            record.cents = cents
            record.attempts += 1
            record.state = _next_state(card, record.attempts)
    if record.state == GatewayCharge.State.PENDING:
        raise GatewayUnavailable(f"no answer to attempt {record.attempts}")
    if record.state == GatewayCharge.State.DECLINED:
        raise CardDeclined("insufficient funds")
    if record.state != GatewayCharge.State.CHARGED:
        raise CardDeclined(f"the payment was {record.state}")
    return _receipt(record)


def refund(key: str) -> bool:
    """Pay back what was charged under a key, or refuse a charge still to come; return whether money moved."""
    with _record(key) as record:
        charged = record.state == GatewayCharge.State.CHARGED
        if charged:
            record.state = GatewayCharge.State.REFUNDED
        elif record.state == GatewayCharge.State.PENDING:
            record.state = GatewayCharge.State.VOIDED
    return charged


@contextmanager
def _record(key: str) -> Iterator[GatewayCharge]:
    with transaction.atomic():
        GatewayCharge.objects.get_or_create(key=key)
        record = GatewayCharge.objects.select_for_update().get(key=key)
        yield record
        record.save()


def _next_state(card: str, attempt: int) -> GatewayCharge.State:
    if card == Order.Card.DECLINED:
        return GatewayCharge.State.DECLINED
    if attempt <= FAILURES.get(Order.Card(card), 0):
        return GatewayCharge.State.PENDING
    return GatewayCharge.State.CHARGED


def _receipt(record: GatewayCharge) -> str:
    return f"R{record.pk:06d}-{record.cents}"

"""How an order becomes a parcel: approval, payment, shipping, and the way back when it is cancelled."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from django.core.mail import send_mail

from django_workflows import RetryPolicy, Signal, activity, workflow

from . import payments
from .models import Order

APPROVAL_FROM_CENTS = 500_00  # smaller orders need nobody's approval
APPROVAL_PERIOD = timedelta(days=3)
PICKUP_DELAY = timedelta(seconds=1)

approval = Signal("approval", bool)


@workflow
async def fulfil_order(order_id: int, cents: int) -> Order.Status:
    """Bring an order to its end; a cancelled one gets its money back first."""
    try:
        return await _fulfil(order_id, cents)
    except asyncio.CancelledError:
        await close_cancelled(order_id, await refund_payment(order_id))
        raise


async def _fulfil(order_id: int, cents: int) -> Order.Status:
    if cents >= APPROVAL_FROM_CENTS:
        decision = await _approval(order_id)
        if decision is not None:
            await set_status(order_id, decision)
            return decision
    try:
        receipt = await charge_card(order_id, cents)
    except payments.CardDeclined as error:
        await set_status(order_id, Order.Status.DECLINED, str(error))
        return Order.Status.DECLINED
    except Exception as error:
        # No answer from the gateway, or a worker that died before it could tell: money may have moved all the same.
        await refund_payment(order_id)
        await set_status(order_id, Order.Status.PAYMENT_FAILED, str(error))
        raise
    await mark_paid(order_id, receipt)
    await asyncio.gather(ship_order(order_id), send_receipt(order_id))
    return Order.Status.SHIPPED


async def _approval(order_id: int) -> Order.Status | None:
    """Wait for a decision; None means go on."""
    await set_status(order_id, Order.Status.AWAITING_APPROVAL)
    try:
        async with asyncio.timeout(APPROVAL_PERIOD.total_seconds()):
            approved = await approval.receive()
    except TimeoutError:
        return Order.Status.EXPIRED
    return None if approved else Order.Status.REJECTED


@workflow
async def ship_order(order_id: int) -> str:
    """Label the parcel, wait for the carrier, hand it over."""
    tracking = await print_label(order_id)
    await workflow.sleep(PICKUP_DELAY)
    await hand_over(order_id, tracking)
    return tracking


@activity(
    retry=RetryPolicy(
        max_attempts=5,
        initial_interval=timedelta(milliseconds=200),
        backoff=2.0,
        non_retryable=(payments.CardDeclined,),
    ),
    start_to_close_timeout=timedelta(seconds=30),
)
def charge_card(order_id: int, cents: int) -> str:
    """Charge the order's card; the order is the idempotency key, so a repeated attempt charges nothing twice."""
    order = Order.objects.get(pk=order_id)
    return payments.charge(order.instance_id, order.card, cents)


@activity(retry=RetryPolicy())  # without a limit: nobody's money is given up
def refund_payment(order_id: int) -> bool:
    """Pay back what was charged, and see to it that a charge still on its way is refused."""
    return payments.refund(Order(pk=order_id).instance_id)


@activity(atomic=True)
def set_status(order_id: int, status: Order.Status, note: str = "") -> None:
    """Record where the order stands."""
    Order.objects.filter(pk=order_id).update(status=status, note=note[:200])


@activity(atomic=True)
def mark_paid(order_id: int, receipt: str) -> None:
    """Record the payment: committed together with the activity's result, or not at all."""
    Order.objects.filter(pk=order_id).update(status=Order.Status.PAID, receipt=receipt)


@activity(atomic=True)
def close_cancelled(order_id: int, refunded: bool) -> None:
    """Record that the order was cancelled and what became of the money."""
    note = "the payment was refunded" if refunded else "nothing had been charged"
    Order.objects.filter(pk=order_id).update(status=Order.Status.CANCELLED, note=note, tracking="")


@activity
def print_label(order_id: int) -> str:
    """Ask the pretend carrier for a label; the same order always gets the same one."""
    return f"EX{order_id:08d}US"


@activity(atomic=True)
def hand_over(order_id: int, tracking: str) -> None:
    """Record that the carrier has the parcel."""
    Order.objects.filter(pk=order_id).update(status=Order.Status.SHIPPED, tracking=tracking)


@activity
def send_receipt(order_id: int) -> None:
    """Mail the receipt; like every activity that is not atomic, it may in rare cases be sent twice."""
    order = Order.objects.select_related("product").get(pk=order_id)
    send_mail(
        subject=f"Your order {order.pk}",
        message=f"{order.quantity} x {order.product.name}, {order.dollars}. Receipt {order.receipt}.",
        from_email=None,
        recipient_list=[order.email],
    )

"""Orders from the form to their end, with a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core import mail
from django.test import Client

from django_workflows import InstanceStatus, WorkflowCancelled, WorkflowFailed
from django_workflows.models import WorkflowInstance
from django_workflows.testing import running_worker
from example_project.orders.models import GatewayCharge, Order, Product
from example_project.orders.workflows import fulfil_order

from .conftest import order_form, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def worker(transactional_db: None) -> Iterator[None]:
    with running_worker():
        yield


def place(client: Client, product: Product, card: str = Order.Card.GOOD) -> Order:
    client.post("/orders/new/", order_form(product, card))
    return Order.objects.latest("pk")


def wait_for_status(order: Order, status: Order.Status) -> None:
    def reached() -> bool:
        order.refresh_from_db()
        return order.status == status

    wait_for(reached, f"{order} to be {status}")


def end(order: Order) -> Order.Status:
    return fulfil_order.handle(order.instance_id).result(timeout=30)


def test_small_order_is_shipped_without_approval(client: Client, teapot: Product) -> None:
    order = place(client, teapot)
    assert end(order) is Order.Status.SHIPPED
    order.refresh_from_db()
    assert (order.status, order.tracking) == ("shipped", f"EX{order.pk:08d}US")
    assert order.receipt
    assert [message.to for message in mail.outbox] == [[order.email]]


def test_flaky_gateway_is_asked_again(client: Client, teapot: Product) -> None:
    order = place(client, teapot, Order.Card.FLAKY)
    assert end(order) is Order.Status.SHIPPED
    assert GatewayCharge.objects.get().attempts == 3


def test_declined_card_is_not_tried_again(client: Client, teapot: Product) -> None:
    order = place(client, teapot, Order.Card.DECLINED)
    assert end(order) is Order.Status.DECLINED
    order.refresh_from_db()
    assert (order.status, order.note) == ("declined", "insufficient funds")
    assert GatewayCharge.objects.get().attempts == 1


def test_outage_fails_the_instance_and_refuses_a_late_charge(client: Client, teapot: Product) -> None:
    order = place(client, teapot, Order.Card.OUTAGE)
    with pytest.raises(WorkflowFailed, match="no answer to attempt 5"):
        end(order)
    order.refresh_from_db()
    assert order.status == Order.Status.PAYMENT_FAILED
    assert GatewayCharge.objects.get().state == GatewayCharge.State.VOIDED


@pytest.mark.parametrize(("decision", "status"), [("approve", "shipped"), ("reject", "rejected")])
def test_large_order_waits_for_staff(
    client: Client, staff_client: Client, sofa: Product, decision: str, status: str
) -> None:
    order = place(client, sofa)
    wait_for_status(order, Order.Status.AWAITING_APPROVAL)
    assert "Approve" in staff_client.get(order.get_absolute_url()).text
    staff_client.post(f"/orders/{order.pk}/decide/", {"decision": decision})
    assert end(order) == status


def test_cancelled_while_it_waits(client: Client, sofa: Product) -> None:
    order = place(client, sofa)
    wait_for_status(order, Order.Status.AWAITING_APPROVAL)
    client.post(f"/orders/{order.pk}/cancel/")
    with pytest.raises(WorkflowCancelled):
        end(order)
    order.refresh_from_db()
    assert (order.status, order.note) == ("cancelled", "nothing had been charged")


def test_cancelled_after_payment_is_refunded(client: Client, teapot: Product) -> None:
    order = place(client, teapot)
    shipping = WorkflowInstance.objects.filter(name="orders.ship_order")
    wait_for(shipping.exists, "the shipping to start")  # the carrier takes a second to come
    client.post(f"/orders/{order.pk}/cancel/")
    with pytest.raises(WorkflowCancelled):
        end(order)
    order.refresh_from_db()
    assert (order.status, order.note, order.tracking) == ("cancelled", "the payment was refunded", "")
    assert GatewayCharge.objects.get().state == GatewayCharge.State.REFUNDED
    assert shipping.get().status == InstanceStatus.CANCELLED


def test_deciding_too_late_is_a_message(client: Client, staff_client: Client, teapot: Product) -> None:
    order = place(client, teapot)
    end(order)
    for action in ("decide", "cancel"):
        response = staff_client.post(f"/orders/{order.pk}/{action}/", follow=True)
        assert f"Too late: order {order.pk} is closed (Shipped)." in response.text

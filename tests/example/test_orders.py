"""The shop's pages, without a worker."""

from __future__ import annotations

import pytest
from django.test import Client

from django_workflows import InstanceAlreadyExists
from django_workflows.models import WorkflowInstance
from example_project.orders import payments
from example_project.orders.forms import OrderForm
from example_project.orders.models import GatewayCharge, Order, Product
from example_project.orders.workflows import fulfil_order

from .conftest import order_form

pytestmark = pytest.mark.django_db


class TestForm:
    def test_computes_the_total(self, teapot: Product) -> None:
        form = OrderForm(order_form(teapot, quantity=3))
        assert form.is_valid()
        assert form.save().cents == 72_00

    @pytest.mark.parametrize("quantity", [0, -1, 1001])
    def test_refuses_an_absurd_quantity(self, teapot: Product, quantity: int) -> None:
        assert "quantity" in OrderForm(order_form(teapot, quantity=quantity)).errors

    def test_refuses_a_total_that_no_column_holds(self) -> None:
        yacht = Product.objects.create(name="Yacht", cents=2_000_000_00)
        assert "order fewer" in str(OrderForm(order_form(yacht, quantity=1000)).errors)


class TestPlace:
    def test_creates_order_and_instance(self, client: Client, teapot: Product) -> None:
        response = client.post("/orders/new/", order_form(teapot), follow=True)
        order = Order.objects.get()
        assert response.redirect_chain[-1][0] == order.get_absolute_url()
        assert f"Order {order.pk} is placed." in response.text
        instance = WorkflowInstance.objects.get()
        assert instance.instance_id == f"order-{order.pk}"
        assert instance.name == "orders.fulfil_order"
        assert list(WorkflowInstance.objects.for_subject(order)) == [instance]

    def test_keeps_neither_if_the_workflow_cannot_start(self, client: Client, teapot: Product) -> None:
        earlier = Order.objects.create(email="customer@example.com", product=teapot, cents=24_00)
        fulfil_order.using(instance_id=f"order-{earlier.pk + 1}").start(earlier.pk, 24_00)
        with pytest.raises(InstanceAlreadyExists):
            client.post("/orders/new/", order_form(teapot))
        assert Order.objects.get() == earlier
        assert WorkflowInstance.objects.count() == 1

    def test_shows_what_is_wrong(self, client: Client, teapot: Product) -> None:
        response = client.post("/orders/new/", {**order_form(teapot), "email": "nobody"})
        assert response.status_code == 200
        assert "Enter a valid email address" in response.text
        assert not WorkflowInstance.objects.exists()


class TestPages:
    def test_customers_see_their_own_orders_only(self, client: Client, teapot: Product) -> None:
        client.post("/orders/new/", order_form(teapot))
        order = Order.objects.get()
        assert client.get(order.get_absolute_url()).status_code == 200
        assert Client().get(order.get_absolute_url()).status_code == 404
        assert "Nothing ordered yet" in Client().get("/orders/").text

    def test_staff_see_all_orders(self, client: Client, staff_client: Client, teapot: Product) -> None:
        client.post("/orders/new/", order_form(teapot))
        order = Order.objects.get()
        assert order.get_absolute_url() in staff_client.get("/orders/").text
        assert f"order-{order.pk}" in staff_client.get(order.get_absolute_url()).text

    def test_only_staff_decide(self, client: Client, sofa: Product) -> None:
        client.post("/orders/new/", order_form(sofa))
        order = Order.objects.get()
        assert client.post(f"/orders/{order.pk}/decide/", {"decision": "approve"}).status_code == 403

    def test_decisions_and_cancellations_are_posts_with_a_token(self, sofa: Product) -> None:
        strict = Client(enforce_csrf_checks=True)
        for action in ("decide", "cancel"):
            assert strict.get(f"/orders/1/{action}/").status_code == 405
            assert strict.post(f"/orders/1/{action}/").status_code == 403

    def test_an_order_without_workflow_says_so(self, staff_client: Client, teapot: Product) -> None:
        order = Order.objects.create(email="customer@example.com", product=teapot, cents=24_00)
        response = staff_client.post(f"/orders/{order.pk}/cancel/", follow=True)
        assert f"Order {order.pk} has no workflow" in response.text

    @pytest.mark.parametrize("path", ["/orders/", "/orders/new/", "/airports/", "/admin/login/"])
    def test_pages_keep_a_strict_content_security_policy(self, client: Client, path: str) -> None:
        response = client.get(path)
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "<style" not in response.text
        assert " style=" not in response.text


class TestGateway:
    def test_charges_once_per_key(self) -> None:
        first = payments.charge("order-1", Order.Card.GOOD, 500)
        assert payments.charge("order-1", Order.Card.GOOD, 500) == first
        assert GatewayCharge.objects.get().attempts == 1

    def test_flaky_card_works_at_the_third_attempt(self) -> None:
        for _ in range(2):
            with pytest.raises(payments.GatewayUnavailable):
                payments.charge("order-1", Order.Card.FLAKY, 500)
        assert payments.charge("order-1", Order.Card.FLAKY, 500)

    def test_declined_card_stays_declined(self) -> None:
        for _ in range(2):
            with pytest.raises(payments.CardDeclined, match="insufficient funds"):
                payments.charge("order-1", Order.Card.DECLINED, 500)

    def test_refund_pays_back_once(self) -> None:
        payments.charge("order-1", Order.Card.GOOD, 500)
        assert payments.refund("order-1")
        assert not payments.refund("order-1")

    def test_charge_after_its_refund_is_refused(self) -> None:
        assert not payments.refund("order-1")
        with pytest.raises(payments.CardDeclined, match="voided"):
            payments.charge("order-1", Order.Card.GOOD, 500)

"""Place an order and follow it; staff decide about the large ones."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_workflows import InstanceNotFound, InstanceNotRunning, WorkflowHandle

from .forms import OrderForm
from .models import Order
from .workflows import approval, fulfil_order

Handle = WorkflowHandle[Order.Status]


@require_safe
def order_list(request: HttpRequest) -> HttpResponse:
    """Show the visitor's own orders; staff see all."""
    return render(request, "orders/list.html", {"orders": _visible_orders(request)[:100]})


def place(request: HttpRequest) -> HttpResponse:
    """Create an order and start its workflow: both are committed, or neither."""
    form = OrderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            order = form.save()
            fulfil_order.using(instance_id=order.instance_id, subject=order).start(order.pk, order.cents)
        request.session["orders"] = [*request.session.get("orders", []), order.pk]
        messages.success(request, f"Order {order.pk} is placed.")
        return redirect(order)
    return render(request, "orders/place.html", {"form": form})


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Show where an order stands."""
    order = get_object_or_404(_visible_orders(request), pk=pk)
    try:
        instance = fulfil_order.handle(order.instance_id).describe()
    except InstanceNotFound:  # created in the admin, or its history was pruned
        instance = None
    return render(request, "orders/detail.html", {"order": order, "instance": instance})


@require_POST
@permission_required("orders.approve_order", raise_exception=True)
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve or reject an order that waits for it."""
    order = get_object_or_404(Order, pk=pk)
    approved = request.POST.get("decision") == "approve"
    done = "approved" if approved else "rejected"
    return _send(request, order, done, lambda handle: handle.signal(approval, approved))


@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Cancel an order; its workflow cleans up."""
    order = get_object_or_404(_visible_orders(request), pk=pk)
    return _send(request, order, "being cancelled", lambda handle: handle.cancel("cancelled on the order page"))


def _send(request: HttpRequest, order: Order, done: str, send: Callable[[Handle], None]) -> HttpResponse:
    try:
        send(fulfil_order.handle(order.instance_id))
    except InstanceNotRunning:
        order.refresh_from_db()
        messages.error(request, f"Too late: order {order.pk} is closed ({order.get_status_display()}).")
    except InstanceNotFound:
        messages.error(request, f"Order {order.pk} has no workflow: it was not placed through the shop.")
    else:
        messages.success(request, f"Order {order.pk} is {done}.")
    return redirect(order)


def _visible_orders(request: HttpRequest) -> QuerySet[Order]:
    orders = Order.objects.select_related("product")
    if request.user.has_perm("orders.view_order"):
        return orders
    return orders.filter(pk__in=request.session.get("orders", []))

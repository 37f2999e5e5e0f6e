"""Products, orders, and the books of the pretend payment gateway."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse


class Product(models.Model):
    """Something to buy."""

    name = models.CharField(max_length=100, unique=True)
    cents = models.PositiveIntegerField("price in cents")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return f"{self.name} (${self.cents / 100:,.2f})"


class Order(models.Model):
    """What a customer ordered. Its row is written by its workflow; the workflow's own state is not copied here."""

    class Status(models.TextChoices):
        PLACED = "placed"
        AWAITING_APPROVAL = "awaiting_approval", "Awaiting approval"
        PAID = "paid"
        SHIPPED = "shipped"
        REJECTED = "rejected"
        EXPIRED = "expired"
        DECLINED = "declined"
        PAYMENT_FAILED = "payment_failed", "Payment failed"
        CANCELLED = "cancelled"

    class Card(models.TextChoices):
        GOOD = "tok_good", "4242 … 4242: works"
        FLAKY = "tok_flaky", "4000 … 0119: the gateway fails twice, then works"
        DECLINED = "tok_declined", "4000 … 0002: declined"
        OUTAGE = "tok_outage", "4000 … 0341: the gateway never answers"

    email = models.EmailField()
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1), MaxValueValidator(1000)])
    cents = models.PositiveIntegerField("total in cents", editable=False)
    card = models.CharField(max_length=20, choices=Card.choices, default=Card.GOOD)
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.PLACED)
    note = models.CharField(max_length=200, blank=True)
    receipt = models.CharField(max_length=40, blank=True)
    tracking = models.CharField(max_length=40, blank=True)
    placed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        permissions = [("approve_order", "Can approve or reject orders")]

    def __str__(self) -> str:
        return f"Order {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("orders:detail", args=[self.pk])

    @property
    def instance_id(self) -> str:
        """The id of the workflow instance that fulfils this order."""
        return f"order-{self.pk}"

    @property
    def dollars(self) -> str:
        return f"${self.cents / 100:,.2f}"


class GatewayCharge(models.Model):
    """The payment gateway's own record of one idempotency key; a real shop would find it on the other side of HTTP."""

    class State(models.TextChoices):
        PENDING = "pending"
        CHARGED = "charged"
        DECLINED = "declined"
        REFUNDED = "refunded"
        VOIDED = "voided"  # refunded before it was charged: a late charge is refused

    key = models.CharField("idempotency key", max_length=40, unique=True)
    cents = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.key}: {self.state}"

"""What the activities of the tests write, so that their effects can be counted, and the objects that they get."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models


class Effect(models.Model):
    key = models.CharField(max_length=255)
    value = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


class Customer(models.Model):
    """What workflows get and give as a model object. Its `__init__` reads a field, as many do to see changes."""

    name = models.CharField(max_length=100)
    visits = models.IntegerField(default=0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.original_name = self.name

    def __str__(self) -> str:
        return self.name


class RegularCustomer(Customer):
    class Meta:
        proxy = True


class Visible(models.Manager["Ticket"]):
    def get_queryset(self) -> models.QuerySet[Ticket]:
        return super().get_queryset().filter(hidden=False)


class Ticket(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    hidden = models.BooleanField(default=False)

    objects = Visible()

    def __str__(self) -> str:
        return str(self.pk)


class Place(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Restaurant(Place):
    stars = models.IntegerField(default=0)


class Booking(models.Model):
    pk = models.CompositePrimaryKey("restaurant", "day")
    restaurant = models.ForeignKey(Restaurant, on_delete=models.CASCADE)
    day = models.DateField()
    seats = models.IntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.restaurant_id} {self.day}"

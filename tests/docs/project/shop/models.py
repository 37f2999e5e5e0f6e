"""The model that the documentation's examples use."""

from django.db import models


class Order(models.Model):
    email = models.EmailField()
    cents = models.PositiveIntegerField()
    receipt = models.CharField(max_length=50, blank=True)
    state = models.CharField(max_length=20, default="new")

    class Meta:
        app_label = "testapp"  # whose tables the test database gets without migrations

    def __str__(self) -> str:
        return f"order {self.pk}"

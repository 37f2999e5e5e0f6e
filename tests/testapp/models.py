"""What the activities of the tests write, so that their effects can be counted."""

from __future__ import annotations

from django.db import models


class Effect(models.Model):
    key = models.CharField(max_length=255)
    value = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.key}={self.value}"

"""Airports, and the files they come from."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse


class ImportJob(models.Model):
    """One uploaded file and what became of it."""

    class Status(models.TextChoices):
        RUNNING = "running"
        AWAITING_APPROVAL = "awaiting_approval", "Awaiting approval"
        PUBLISHED = "published"
        DISCARDED = "discarded"
        CANCELLED = "cancelled"
        FAILED = "failed"

    file = models.FileField("CSV file", upload_to="imports/")
    pause = models.FloatField(
        "pause after each 200 rows, in seconds",
        default=0,
        validators=[MinValueValidator(0), MaxValueValidator(60)],
        help_text="Slows the import down, to be kind to a busy database or to watch it.",
    )
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.RUNNING)
    done = models.PositiveIntegerField("rows done", default=0)
    error = models.TextField(blank=True)
    report = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        permissions = [("publish_importjob", "Can publish or discard imports")]

    def __str__(self) -> str:
        return f"Import {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("imports:job", args=[self.pk])

    @property
    def instance_id(self) -> str:
        """The id of the workflow instance that does this import."""
        return f"import-{self.pk}"


class Airport(models.Model):
    """An airport; visible to visitors once published."""

    iata = models.CharField("code", max_length=4, unique=True)
    name = models.CharField(max_length=100)
    city = models.CharField(max_length=100)
    state = models.CharField(max_length=2)
    country = models.CharField(max_length=100)
    latitude = models.FloatField()
    longitude = models.FloatField()
    published = models.BooleanField(default=False)
    added_by = models.ForeignKey(ImportJob, null=True, on_delete=models.SET_NULL, related_name="added_airports")

    class Meta:
        ordering = ["iata"]

    def __str__(self) -> str:
        return f"{self.iata} {self.name}"

"""Three viewers of the admin, by what they may see."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client


def client_of(name: str, *codenames: str) -> Client:
    user = User.objects.create_user(name, is_staff=True)
    found = Permission.objects.filter(content_type__app_label="django_workflows", codename__in=codenames)
    assert len(found) == len(codenames)
    user.user_permissions.set(found)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def viewer(db: None) -> Client:
    """May see everything."""
    return client_of("viewer", "view_workflowinstance", "view_worker", "view_payload")


@pytest.fixture
def operator(db: None) -> Client:
    """May see instances and workers, not their payloads."""
    return client_of("operator", "view_workflowinstance", "view_worker")


@pytest.fixture
def stranger(db: None) -> Client:
    """Staff, without any permission here."""
    return client_of("stranger")

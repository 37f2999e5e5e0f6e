"""The example project's own URLs, templates and middleware, inside the test project."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.fixtures import Settings

from example_project import settings as example_settings
from example_project.orders.models import Order, Product


@pytest.fixture(autouse=True)
def example(settings: Settings, tmp_path: Path) -> None:
    settings.ROOT_URLCONF = example_settings.ROOT_URLCONF
    settings.TEMPLATES = example_settings.TEMPLATES
    settings.MIDDLEWARE = example_settings.MIDDLEWARE
    settings.STATICFILES_DIRS = example_settings.STATICFILES_DIRS
    settings.LOGIN_URL = example_settings.LOGIN_URL
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def staff_client(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("staff", "staff@example.com", "secret"))
    return client


@pytest.fixture
def teapot(db: None) -> Product:
    return Product.objects.get_or_create(name="Teapot", defaults={"cents": 24_00})[0]


@pytest.fixture
def sofa(db: None) -> Product:
    return Product.objects.get_or_create(name="Sofa", defaults={"cents": 1_290_00})[0]


def order_form(product: Product, card: str = Order.Card.GOOD, quantity: int = 1) -> dict[str, object]:
    return {"product": product.pk, "quantity": quantity, "email": "customer@example.com", "card": card}


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"expected {what} within {seconds} s")
        time.sleep(0.01)

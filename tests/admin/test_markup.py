"""The pages work under a strict content security policy and with a screen reader."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_workflows.failures import Failure
from django_workflows.models import InstanceStatus, Timer
from tests.admin import rows

pytestmark = pytest.mark.django_db


class Outline(HTMLParser):
    """Collects what the tests below look at."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.inline: list[str] = []
        self.unscoped: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes: dict[str, Any] = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "style" or (tag == "script" and "src" not in attributes):
            self.inline.append(tag)
        self.inline += [name for name in attributes if name == "style" or name.startswith("on")]
        if tag == "th" and "scope" not in attributes:
            self.unscoped.append(str(attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.references += attributes.get("aria-labelledby", "").split()


@pytest.fixture
def pages(viewer: Client) -> dict[str, str]:
    now = timezone.now()
    failure = Failure.of(ValueError("no", 17)).encode().decode()
    instance = rows.instance(status=InstanceStatus.BLOCKED, failure=failure, result="1", attributes={"a": 1})
    rows.worker(["default"])
    rows.task(instance, 1, available_at=now, expires_at=now + timedelta(hours=1), last_failure=failure)
    rows.message(instance, '{"name":"approval","value":true}')
    Timer.objects.create(instance_id=instance.pk, command=1, chain_id=instance.pk, fire_at=now, wake_at=now)
    rows.events(instance, [("SideEffectRecorded", '{"command":1,"value":17}')] * 250)
    addresses = {
        "instances": reverse("admin:django_workflows_workflowinstance_changelist"),
        "instance": reverse("admin:django_workflows_workflowinstance_change", args=[instance.pk]),
        "workers": reverse("admin:django_workflows_worker_changelist"),
    }
    return {name: viewer.get(address).content.decode() for name, address in addresses.items()}


def test_no_script_or_style_is_inline(pages: dict[str, str]) -> None:
    assert {name: Outline(page).inline for name, page in pages.items()} == {name: [] for name in pages}


def test_the_stylesheet_is_a_file(pages: dict[str, str]) -> None:
    for page in pages.values():
        assert re.search(r'<link href="/static/django_workflows/admin.css"[^>]* rel="stylesheet">', page)


def test_headings_come_in_order(pages: dict[str, str]) -> None:
    page = pages["instance"]
    headings = Outline(page[page.index("<h1") :]).headings
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(headings))


def test_headers_have_a_scope_and_labels_exist(pages: dict[str, str]) -> None:
    outline = Outline(pages["instance"])
    assert outline.unscoped == []
    assert set(outline.references) <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))


def test_the_breadcrumbs_are_those_of_the_admin(pages: dict[str, str]) -> None:
    page = pages["instance"]
    crumbs = page[page.index('class="breadcrumbs"') :][:800]
    assert reverse("admin:index") in crumbs
    assert reverse("admin:django_workflows_workflowinstance_changelist") in crumbs

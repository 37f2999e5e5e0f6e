"""The list of workers."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from django_workflows.models import Worker
from tests.admin import rows

pytestmark = pytest.mark.django_db

URL = "admin:django_workflows_worker_changelist"


def test_workers_show_their_queues_and_state(operator: Client) -> None:
    rows.worker(["default", "db"], host="alive.example.com", process_id=4711)
    rows.worker(["<b>"], host="late.example.com", lease=timedelta(minutes=-3))
    rows.worker(["default"], host="dead.example.com", state=Worker.State.DEAD)
    page = operator.get(reverse(URL)).content.decode()
    assert "alive.example.com:4711" in page and "default, db" in page
    for word in ("Alive", "Lease expired", "Dead"):
        assert f"</span> {word}</span>" in page
    assert re.search(r"3 min \d\d s ago", page)
    assert "&lt;b&gt;" in page and "<b>" not in page


def test_live_workers_come_first(operator: Client) -> None:
    dead = rows.worker([], state=Worker.State.DEAD)
    old, new = rows.worker([]), rows.worker([])
    dead_later = rows.worker([], state=Worker.State.DEAD)
    response = operator.get(reverse(URL))
    assert list(response.context["cl"].result_list) == [new, old, dead_later, dead]


def test_workers_need_their_own_permission(stranger: Client, operator: Client) -> None:
    row = rows.worker(["default"])
    assert stranger.get(reverse(URL)).status_code == 403
    assert operator.get(reverse("admin:django_workflows_worker_change", args=[row.pk])).status_code == 200
    assert operator.post(reverse("admin:django_workflows_worker_delete", args=[row.pk])).status_code == 403

"""The list of instances: what it shows, finds and costs, and who may see it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_workflows.admin.readonly import COUNT_LIMIT
from django_workflows.models import InstanceStatus, WorkflowInstance
from tests.admin import rows

pytestmark = pytest.mark.django_db

URL = "admin:django_workflows_workflowinstance_changelist"


def get(client: Client, **parameters: Any) -> str:
    response = client.get(reverse(URL), parameters)
    assert response.status_code == 200, response
    return response.content.decode()


def found(client: Client, **parameters: Any) -> list[str]:
    response = client.get(reverse(URL), parameters)
    assert response.status_code == 200, response
    assert response.context is not None
    return [instance.instance_id for instance in response.context["cl"].result_list]


def test_a_row_shows_status_times_and_history_length(viewer: Client) -> None:
    now = timezone.now()
    rows.instance(
        "order-1", InstanceStatus.FAILED, created_at=now - timedelta(hours=1), closed_at=now, history_length=41
    )
    page = get(viewer)
    assert '<span class="dwf-shape" aria-hidden="true">✕</span> Failed' in page
    assert "1 h 00 min" in page
    assert '<td class="field-history_events">41</td>' in page


def test_an_open_instance_has_the_length_of_its_open_row(viewer: Client) -> None:
    rows.instance("order-1", live_length=73)
    assert '<td class="field-history_events">73</td>' in get(viewer)


@pytest.mark.parametrize("status", InstanceStatus)
def test_every_status_has_a_shape_and_a_word(viewer: Client, status: InstanceStatus) -> None:
    rows.instance(status=status)
    page = get(viewer)
    assert f"dwf-badge dwf-{status.value}" in page
    assert f"</span> {status.label}</span>" in page


def test_a_status_of_another_release_is_shown_by_name(viewer: Client) -> None:
    rows.instance(status="paused<b>")
    assert "</span> paused&lt;b&gt;</span>" in get(viewer)


def test_filters_by_status_and_workflow(viewer: Client) -> None:
    rows.instance("a", InstanceStatus.COMPLETED, name="shop.ship")
    rows.instance("b", InstanceStatus.FAILED, name="shop.ship")
    rows.instance("c", InstanceStatus.FAILED, name="removed.workflow")
    assert found(viewer, status__exact="failed") == ["c", "b"]
    assert found(viewer, workflow="shop.ship") == ["b", "a"]
    assert found(viewer, workflow="shop.ship", status__exact="failed") == ["b"]


def test_the_workflow_filter_offers_registered_names_and_the_asked_one(viewer: Client) -> None:
    page = get(viewer, workflow="removed.workflow")
    assert "?workflow=testapp.greet" in page
    assert "?workflow=removed.workflow" in page


def test_search_finds_the_whole_id_first(viewer: Client) -> None:
    for name in ("order-1", "order-10", "order-1", "other"):
        rows.instance(name, InstanceStatus.COMPLETED)
    assert found(viewer, q="order-1") == ["order-1", "order-1"]
    assert found(viewer, q="order-1*") == ["order-1", "order-10", "order-1"]
    assert found(viewer, q="ord") == ["order-1", "order-10", "order-1"]
    assert found(viewer, q="rder") == []
    assert found(viewer, q="x" * 400) == []
    assert found(viewer, q="örder") == []


def test_search_finds_an_execution_id(viewer: Client) -> None:
    row = rows.instance("order-1")
    rows.instance("order-2")
    assert found(viewer, q=row.execution_id) == ["order-1"]


def test_a_whole_id_is_looked_up_by_its_key(viewer: Client) -> None:
    rows.instance("order-1")
    with CaptureQueriesContext(connection) as queries:
        found(viewer, q="order-1")
    instance_queries = [query["sql"] for query in queries if "workflowinstance" in query["sql"].split("WHERE")[0]]
    assert instance_queries
    assert all("LIKE" not in sql and "instance_key" in sql for sql in instance_queries)


def test_the_number_of_queries_does_not_depend_on_the_number_of_rows(viewer: Client) -> None:
    rows.instance()
    get(viewer)
    with CaptureQueriesContext(connection) as few:
        get(viewer)
    for _ in range(30):
        rows.instance(status=InstanceStatus.BLOCKED)
    with CaptureQueriesContext(connection) as many:
        get(viewer)
    assert len(many) == len(few)


def test_no_query_reads_payloads_or_collects_distinct_values(viewer: Client) -> None:
    rows.instance()
    with CaptureQueriesContext(connection) as queries:
        get(viewer)
    statements = [query["sql"] for query in queries]
    assert not [sql for sql in statements if "DISTINCT" in sql and "django_workflows" in sql]
    for column in ("input", "result", "failure", "attributes"):
        quoted = connection.ops.quote_name(column)
        assert not [sql for sql in statements if quoted in sql]


def test_counting_stops_at_a_limit_and_the_page_says_so(viewer: Client) -> None:
    now = timezone.now()
    WorkflowInstance.objects.bulk_create(
        WorkflowInstance(instance_id=f"{number}", instance_key=f"{number}", execution_id=f"{number}", closed_at=now)
        for number in range(COUNT_LIMIT + 7)
    )
    with CaptureQueriesContext(connection) as queries:
        page = get(viewer)
    assert "The first 10,000 that match" in page
    [counting] = [query["sql"] for query in queries if "COUNT(" in query["sql"]]
    assert f"LIMIT {COUNT_LIMIT}" in counting


@pytest.mark.parametrize("lookup", ["input__contains", "result__startswith", "failure", "failure__isnull"])
def test_payloads_cannot_be_guessed_through_the_address(viewer: Client, lookup: str) -> None:
    rows.instance(result='"secret"')
    assert viewer.get(reverse(URL), {lookup: "secret"}).status_code == 400


def test_hostile_names_are_escaped(viewer: Client) -> None:
    rows.instance("<script>alert(1)</script>", name="<img src=x>", queue='"><svg onload>')
    page = get(viewer)
    assert "<script>alert" not in page and "<img src=x>" not in page and "<svg onload" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_who_may_not_view_instances_does_not(stranger: Client, operator: Client) -> None:
    assert stranger.get(reverse(URL)).status_code == 403
    assert Client().get(reverse(URL)).status_code == 302
    assert operator.get(reverse(URL)).status_code == 200


def test_nobody_can_add_change_or_delete(admin_client: Client) -> None:
    row = rows.instance("order-1")
    names = {kind: f"admin:django_workflows_workflowinstance_{kind}" for kind in ("add", "change", "delete")}
    assert admin_client.get(reverse(names["add"])).status_code == 403
    assert admin_client.post(reverse(names["change"], args=[row.pk]), {"name": "x"}).status_code == 405
    assert admin_client.post(reverse(names["delete"], args=[row.pk]), {"post": "yes"}).status_code == 403
    admin_client.post(reverse(URL), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert WorkflowInstance.objects.get().name == row.name


def test_the_admin_passes_its_checks() -> None:
    model_admin = admin.site.get_model_admin(WorkflowInstance)
    assert model_admin.check() == []

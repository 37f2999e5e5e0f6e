"""Whatever stands in an address or in a form of the admin: an answer, and never an error of the server."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from django.db import transaction
from django.test import Client
from django.urls import NoReverseMatch, reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_workflows.models import InstanceStatus
from tests.admin import rows

pytestmark = pytest.mark.django_db

ANSWERS = {200, 302, 400, 403, 404, 405}
PAGES = [
    f"admin:django_workflows_{model}_{page}"
    for model in ("workflowinstance", "worker")
    for page in ("changelist", "add", "history", "delete", "change")
]
FIELDS = [
    "id", "instance_id", "instance_key", "execution_id", "chain_id", "name", "status", "priority", "parent_id",
    "subject_type", "subject_type__model", "subject_pk", "attributes", "attempt", "created_at", "closed_at", "input",
    "queues", "subject_type_id", "state", "beat", "lease_until", "pk",
]  # fmt: skip
LOOKUPS = [
    "",
    "__exact",
    "__regex",
    "__iregex",
    "__contains",
    "__in",
    "__gt",
    "__isnull",
    "__year",
    "__a",
    "__range",
    "__gte",
    "__lt",
]
PARAMETERS = ["q", "o", "p", "all", "e", "order", "page", "workflow", "_changelist_filters", "_popup", "_to_field"]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
odd = st.sampled_from(
    ["\0", "a\0b", "(", "[", "é", "💥", "9" * 30, "-1", "1e9", "0", "1,2", "", "x" * 300, "%", "\\", "1"]
)
values = st.one_of(odd, text)
names = st.one_of(
    st.sampled_from(PARAMETERS), st.builds("{}{}".format, st.sampled_from(FIELDS), st.sampled_from(LOOKUPS)), values
)
keys = values.filter(bool)
fields = names | st.sampled_from(["action", "_selected_action", "index", "select_across", "post"])
queries = st.dictionaries(names, values, max_size=3)
many = settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def url(page: str, key: str) -> str:
    try:
        return reverse(page)
    except NoReverseMatch:
        return reverse(page, args=["KEY"]).replace("KEY", quote(key, safe=""))


def assert_answers(client: Client, method: str, address: str, data: dict[str, str]) -> None:
    with transaction.atomic():
        response = getattr(client, method)(address, data)
    assert response.status_code in ANSWERS, (method, address, data)


@many
@given(st.sampled_from(PAGES), keys, queries)
def test_every_address_has_an_answer(admin_client: Client, page: str, key: str, query: dict[str, str]) -> None:
    assert_answers(admin_client, "get", url(page, key), query)


@many
@given(query=queries)
def test_every_query_of_the_lists_has_an_answer(admin_client: Client, query: dict[str, str]) -> None:
    for page in (PAGES[0], PAGES[5]):
        assert_answers(admin_client, "get", reverse(page), query)


@many
@given(query=queries)
def test_every_query_of_an_instance_page_has_an_answer(admin_client: Client, query: dict[str, str]) -> None:
    row = rows.instance(status=InstanceStatus.COMPLETED)
    assert_answers(admin_client, "get", reverse("admin:django_workflows_workflowinstance_change", args=[row.pk]), query)


@many
@given(st.sampled_from(PAGES), keys, st.dictionaries(fields, values, max_size=3))
def test_every_form_has_an_answer(admin_client: Client, page: str, key: str, form: dict[str, str]) -> None:
    assert_answers(admin_client, "post", url(page, key), form)


@pytest.mark.parametrize("value", ["\0", "(", "é", "9" * 30])
def test_what_a_database_refuses_is_a_bad_request_or_finds_nothing(admin_client: Client, value: str) -> None:
    rows.instance()
    for name in (
        "workflow",
        "status__exact",
        "instance_id",
        "name__regex",
        "execution_id__gt",
        "subject_type",
        "id__in",
    ):
        assert_answers(admin_client, "get", reverse(PAGES[0]), {name: value})
    for name in ("state__exact", "queues", "id__range"):
        assert_answers(admin_client, "get", reverse(PAGES[5]), {name: value})

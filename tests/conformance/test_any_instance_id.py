"""Any text is an instance_id that is found again exactly, by everybody, or it is refused before anything is written."""

from __future__ import annotations

import unicodedata

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from django_workflows import get_handle, workflow
from django_workflows.models import InboxEvent, OpenInstance, WorkflowInstance
from tests.management.calls import attempt, run

pytestmark = pytest.mark.django_db

any_text = st.text(st.characters(exclude_categories=()), max_size=40)
some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@workflow(name="ids.anything")
async def anything() -> None: ...


@some
@given(any_text)
@example("")
@example("x" * 255)
@example("💥" * 255)
@example("x" * 256)
@example("a\0b")
@example("\ud800")
@example(" ")
@example("-h")
@example("a/b?c=d&e#f%2Fg+h")
@example("\n")
def test_any_text_is_an_id_or_is_refused(admin_client: Client, instance_id: str) -> None:
    before = WorkflowInstance.objects.count(), OpenInstance.objects.count(), InboxEvent.objects.count()
    try:
        handle = anything.using(instance_id=instance_id, on_conflict="use_existing").start()
    except ValueError as error:
        assert "instance_id" in str(error)
        assert before == (WorkflowInstance.objects.count(), OpenInstance.objects.count(), InboxEvent.objects.count())
        assert attempt("showworkflow", "--", instance_id).error is not None
        return
    row = get_handle(instance_id).describe()
    assert row.pk == handle.describe().pk
    assert row.instance_id == instance_id
    assert WorkflowInstance.objects.get(pk=row.pk).instance_id == instance_id
    shown = run("showworkflow", "--format=json", "--", instance_id)
    assert shown.document["instance_id"] == instance_id
    page = admin_client.get(reverse("admin:django_workflows_workflowinstance_change", args=[row.pk]))
    assert page.status_code == 200
    found = admin_client.get(reverse("admin:django_workflows_workflowinstance_changelist"), {"q": instance_id})
    assert found.context is not None
    if instance_id == instance_id.strip():  # Django strips what is searched for
        assert row.pk in [instance.pk for instance in found.context["cl"].result_list]


@some
@given(any_text.filter(lambda text: text and "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)))
@example("Straße")
@example("é")
@example("ﬁ")
def test_texts_that_look_alike_are_different_ids(db: None, text: str) -> None:
    alike = {text, text.upper(), text.lower(), f"{text} ", f" {text}", text.casefold()}
    alike |= {unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    ids = [instance_id for instance_id in alike if 0 < len(instance_id) <= 255]
    handles = [anything.using(instance_id=each, on_conflict="use_existing").start() for each in ids]
    assert len({handle.describe().pk for handle in handles}) == len(ids)
    assert [get_handle(each).describe().instance_id for each in ids] == ids

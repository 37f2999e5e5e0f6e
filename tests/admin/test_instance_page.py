"""The page of one instance: what it shows, to whom, and what it costs."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_workflows.failures import Failure
from django_workflows.models import InstanceStatus, OpenInstance, Timer, WorkflowInstance
from tests.admin import rows
from tests.testapp.models import Effect

pytestmark = pytest.mark.django_db


def url(instance: WorkflowInstance) -> str:
    return reverse("admin:django_workflows_workflowinstance_change", args=[instance.pk])


def get(client: Client, instance: WorkflowInstance, **parameters: Any) -> str:
    response = client.get(url(instance), parameters)
    assert response.status_code == 200, response
    return response.content.decode()


def failed(error: Exception) -> str:
    try:
        raise error
    except Exception as caught:
        return Failure.of(caught).encode().decode()


def test_the_facts(viewer: Client) -> None:
    worker = rows.worker(["default"], host="web-9", process_id=31)
    instance = rows.instance("order-17", version="v3", priority=5, attributes={"customer": "Ada"})
    OpenInstance.objects.update(owner_id=worker.pk, history_length=12, crashes=2)
    page = get(viewer, instance)
    for text in (
        "Running",
        "order-17",
        instance.execution_id,
        "shop.fulfil_order",
        "v3",
        "web-9:31",
        "&quot;Ada&quot;",
    ):
        assert text in page
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page, re.DOTALL))
    assert facts["History length"] == "12"
    assert facts["Crashed claims"] == "2"
    assert facts["Priority"] == "5"


def test_relatives_are_linked(viewer: Client) -> None:
    root = rows.instance("root")
    parent = rows.instance("parent", parent_id=root.pk, root_id=root.pk)
    first = rows.instance("child", InstanceStatus.CONTINUED_AS_NEW)
    child = rows.instance("child", parent_id=parent.pk, root_id=root.pk, chain_id=first.pk)
    page = get(viewer, child)
    for other in (root, parent, first):
        assert f'href="{url(other)}"' in page
    assert f"?parent_id={parent.pk}" in get(viewer, parent)
    assert "?parent_id=" not in page
    link = re.search(r'href="([^"]*\?instance_key=[^"]*)"', page)
    assert link is not None
    assert [row.instance_id for row in viewer.get(link[1]).context["cl"].result_list] == ["child", "child"]


def test_a_removed_parent_is_named_by_its_number(viewer: Client) -> None:
    assert "12345 (removed)" in get(viewer, rows.instance(parent_id=12345))


def test_the_subject_is_linked_for_those_who_may_view_it(viewer: Client, admin_client: Client) -> None:
    user = User.objects.create_user("ada")
    instance = rows.instance(subject_type=ContentType.objects.get_for_model(User), subject_pk=str(user.pk))
    link = reverse("admin:auth_user_change", args=[user.pk])
    assert link in get(admin_client, instance)
    page = get(viewer, instance)
    assert link not in page and f"user {user.pk}" in page


def test_a_subject_without_an_admin_or_a_model_is_text(viewer: Client) -> None:
    effect = rows.instance(subject_type=ContentType.objects.get_for_model(Effect), subject_pk="<7>")
    gone = rows.instance(subject_type=ContentType.objects.create(app_label="gone", model="order"), subject_pk="8")
    missing = rows.instance(subject_type_id=987654, subject_pk="subject 9")
    assert "effect &lt;7&gt;" in get(viewer, effect)
    assert "order 8" in get(viewer, gone)
    assert "subject 9" in get(viewer, missing)


def test_input_and_result_are_shown_to_those_who_may_see_payloads(viewer: Client, operator: Client) -> None:
    instance = rows.instance(status=InstanceStatus.COMPLETED, input='{"args":["in-1"]}', result='{"receipt":"out-1"}')
    shown = get(viewer, instance)
    assert "&quot;args&quot;: [\n    &quot;in-1&quot;\n  ]" in shown and "out-1" in shown
    hidden = get(operator, instance)
    assert "in-1" not in hidden and "out-1" not in hidden
    assert "Hidden: 17 characters. Showing them needs the permission to view payloads." in hidden


def test_a_failure_shows_type_message_causes_and_traceback(viewer: Client, operator: Client) -> None:
    error = ValueError("card was declined")
    error.__cause__ = KeyError("gateway")
    error.order = "attribute-5"  # type: ignore[attr-defined]
    instance = rows.instance(status=InstanceStatus.FAILED, failure=failed(error))
    shown = get(viewer, instance)
    for text in ("ValueError", "card was declined", "Caused by", "KeyError", "Traceback", "attribute-5"):
        assert text in shown
    hidden = get(operator, instance)
    assert "card was declined" in hidden and "Traceback" in hidden
    assert "attribute-5" not in hidden


def test_a_blocked_instance_says_why_and_when_it_is_tried_again(viewer: Client) -> None:
    instance = rows.instance(status=InstanceStatus.BLOCKED, failure=failed(RuntimeError("expected event 7")))
    soon = timezone.now() + timedelta(hours=2, seconds=30)
    Timer.objects.create(instance_id=instance.pk, command=0, chain_id=instance.pk, fire_at=soon, wake_at=soon)
    rows.message(instance, '{"name":"approval"}', queue=None)
    page = get(viewer, instance)
    assert "Why it is blocked" in page and "expected event 7" in page
    assert "Next try" in page and "(in 2 h 00 min)" in page
    assert "kept until the instance is no longer blocked" in page


@pytest.mark.parametrize("garbage", ["", "no json <b>", "{", "[" * 3000, '{"type":7}', "null", "\x01"])
def test_garbage_in_a_column_is_shown_as_text(viewer: Client, operator: Client, garbage: str) -> None:
    instance = rows.instance(status=InstanceStatus.BLOCKED, input=garbage, result=garbage, failure=garbage)
    rows.task(instance, 1, available_at=timezone.now(), last_failure=garbage)
    rows.message(instance, garbage)
    rows.events(instance, [("SignalReceived", garbage), ("Unknown<b>", garbage)])
    shown = get(viewer, instance)
    assert "<b>" not in shown
    if "<" in garbage:
        assert "no json &lt;b&gt;" in shown
        assert "no json" not in get(operator, instance)
    get(operator, instance)


def test_pending_activities_say_what_they_wait_for(viewer: Client) -> None:
    worker = rows.worker(["default"], host="web-9", process_id=31)
    rows.worker(["mail"], slots=0)
    rows.worker(["old"], lease=timedelta(minutes=-1))
    instance, now = rows.instance(), timezone.now()
    rows.task(instance, 1, name="shop.runs", attempt=2, owner_id=worker.pk, last_failure=failed(OSError("timed out")))
    rows.task(instance, 2, name="shop.later", attempt=1, available_at=now + timedelta(hours=3, seconds=30))
    rows.task(instance, 3, name="shop.waits", queue="default", available_at=now)
    rows.task(instance, 4, name="shop.nobody", queue="mail", available_at=now)
    rows.task(instance, 5, name="shop.expired", queue="old", available_at=now)
    rows.task(instance, 6, name="shop.lost", owner_id=987654)
    rows.task(instance, 7, name="shop.deferred", queue="old", expires_at=now + timedelta(hours=1))
    page = get(viewer, instance)
    cells = dict(re.findall(r'<th scope="row">(shop\.\w+)</th>(.*?)</tr>', page, re.DOTALL))
    assert "Running on web-9:31" in cells["shop.runs"] and "OSError: timed out" in cells["shop.runs"]
    assert "Next attempt in 3 h 00 min" in cells["shop.later"]
    assert "worker 987654 (gone)" in cells["shop.lost"]
    assert "Deferred" in cells["shop.deferred"] and "times out at" in cells["shop.deferred"]
    unserved = {name for name, rest in cells.items() if "no worker for it" in rest}
    assert unserved == {"shop.nobody", "shop.expired"}
    assert "secret activity input" not in page


def test_heartbeats_are_shown_and_their_details_to_those_who_may_see_payloads(viewer: Client, operator: Client) -> None:
    instance, now = rows.instance(), timezone.now()
    rows.task(instance, 1, owner_id=1, heartbeat_at=now - timedelta(minutes=2, seconds=1), heartbeat='["row <17>"]')
    shown, hidden = get(viewer, instance), get(operator, instance)
    assert "last heartbeat 2 min" in shown and "row &lt;17&gt;" in shown
    assert "last heartbeat 2 min" in hidden and "17" not in hidden.partition("last heartbeat")[2].partition("</td>")[0]


def test_waiting_timers_and_unread_signals(viewer: Client, operator: Client) -> None:
    instance, soon = rows.instance(), timezone.now() + timedelta(days=3, minutes=1)
    Timer.objects.create(instance_id=instance.pk, command=4, chain_id=instance.pk, fire_at=soon, wake_at=soon)
    rows.message(instance, '{"name":"approval","value":"secret-9"}')
    rows.message(instance, '{"name":"foreign"}', instance_id=instance.pk + 1)
    page = get(viewer, instance)
    assert "in 3 d 0 h" in page
    assert "<code>approval</code>" in page and "secret-9" in page
    assert "foreign" not in page
    hidden = get(operator, instance)
    assert "<code>approval</code>" in hidden and "secret-9" not in hidden


def test_what_a_closed_instance_left_behind_is_not_shown(viewer: Client) -> None:
    instance = rows.instance(status=InstanceStatus.TERMINATED)
    rows.task(instance, 1, available_at=timezone.now())
    page = get(viewer, instance)
    assert "Pending activities" not in page and "Unread messages" not in page


def test_an_instance_whose_queue_nobody_serves_says_so(viewer: Client) -> None:
    instance = rows.instance(queue="mail")
    assert "nobody: no worker serves its queue" in get(viewer, instance)
    rows.worker(["mail"])
    assert "nobody: no worker" not in get(viewer, instance)


def test_only_the_first_hundred_live_rows_are_shown(viewer: Client) -> None:
    instance, now = rows.instance(), timezone.now()
    for command in range(105):
        rows.task(instance, command, name=f"shop.a{command}", available_at=now)
    page = get(viewer, instance)
    assert "shop.a99<" in page and "shop.a100<" not in page
    assert "Only the first 100 are shown." in page


HOSTILE = '</pre></script><script>alert("1")</script><img src=x onerror=alert(1)>{{ 7|add:1 }}'


def test_hostile_text_is_escaped_everywhere(viewer: Client, operator: Client) -> None:
    text = json.dumps({"command": 1, "name": HOSTILE, "value": HOSTILE}, separators=(",", ":"))
    instance = rows.instance(
        HOSTILE,
        InstanceStatus.BLOCKED,
        name=HOSTILE,
        queue=HOSTILE,
        version=HOSTILE,
        input=text,
        result=text,
        failure=failed(ValueError(HOSTILE)),
        attributes={HOSTILE: HOSTILE},
        subject_type=ContentType.objects.get_for_model(User),
        subject_pk=HOSTILE[:64],
    )
    worker = rows.worker([HOSTILE], host=HOSTILE)
    rows.task(instance, 1, name=HOSTILE, queue=HOSTILE, owner_id=worker.pk, last_failure=failed(ValueError(HOSTILE)))
    rows.message(instance, text, type="<script>alert(2)</script>")
    rows.events(instance, [("SignalReceived", text), ("<script>alert(3)</script>", HOSTILE)])
    for client in (viewer, operator):
        page = get(client, instance)
        assert "<script>alert" not in page and "<img src=x" not in page
        assert "&lt;script&gt;alert" in page
        assert "{{ 7|add:1 }}" in page


def long_history(instance: WorkflowInstance) -> None:
    steps = [("InstanceStarted", "{}")]
    for command in range(1, 1250):
        note = f'{{"command":{command},"name":"shop.pay","input":{{"args":["argument-{command}"]}},"queue":"default"}}'
        steps += [("ActivityScheduled", note), ("ActivityCompleted", f'{{"command":{command},"result":"r-{command}"}}')]
    steps.append(("InstanceCompleted", '{"command":1250,"result":1}'))
    assert len(steps) == 2500
    rows.events(instance, steps)


def test_a_long_history_is_shown_a_hundred_events_a_page(viewer: Client) -> None:
    instance, short = rows.instance("long"), rows.instance("short")
    long_history(instance)
    rows.events(short, [("InstanceStarted", "{}")])
    get(viewer, short)
    with CaptureQueriesContext(connection) as few:
        get(viewer, short)
    with CaptureQueriesContext(connection) as many:
        page = get(viewer, instance, page=13)
    assert len(many) == len(few) <= 17
    assert len(page) < 150_000
    sequences = re.findall(r"<tr>\s*<td>(\d+)</td>", page)
    assert sequences == [str(number) for number in range(1201, 1301)]
    assert "2500 events" in page
    assert '<a aria-current="page" href="?page=13#history">13</a>' in page


def test_updates_are_listed_with_their_answers(viewer: Client, operator: Client) -> None:
    first = rows.instance("cart", InstanceStatus.CONTINUED_AS_NEW)
    instance = rows.instance("cart", chain_id=first.pk)
    now = timezone.now()
    rows.update(instance, "add", status="completed", result='"the answer"', answered_at=now)
    rows.update(instance, "check_out", status="rejected", failure=failed(ValueError("empty")), answered_at=now)
    rows.update(instance, "count", status="completed", result="7", answered_at=now)
    rows.update(instance, "wait", created_at=now + timedelta(seconds=1))
    rows.update(rows.instance("other"), "of another one")
    shown = get(viewer, instance)
    table = shown[shown.index('id="dwf-updates"') : shown.index('id="history"')]
    assert re.findall(r'<th scope="row"><code>(\w+)</code>', table)[0] == "wait"
    for text in ("add", "Completed", "the answer", "secret update input", "Rejected", "ValueError: empty", "Pending"):
        assert text in table
    assert "<code>7</code>" in table
    assert "of another one" not in shown
    hidden = get(operator, instance)
    assert "the answer" not in hidden and "secret update input" not in hidden
    assert "ValueError: empty" in hidden
    assert "hidden, 28 characters" in hidden
    assert 'id="dwf-updates"' not in get(viewer, rows.instance())


def test_the_history_can_begin_with_the_newest_event(viewer: Client) -> None:
    instance = rows.instance()
    long_history(instance)
    page = get(viewer, instance, order="newest", page=2)
    assert re.findall(r"<tr>\s*<td>(\d+)</td>", page)[0] == "2400"
    assert 'href="?page=3&amp;order=newest#history"' in page


@pytest.mark.parametrize("page", ["0", "-1", "99999", "x", ""])
def test_a_page_that_does_not_exist_is_the_nearest_one(viewer: Client, page: str) -> None:
    instance = rows.instance()
    rows.events(instance, [("InstanceStarted", "{}")])
    assert "InstanceStarted" in get(viewer, instance, page=page)


def test_large_data_is_cut_off_before_it_leaves_the_database(viewer: Client, operator: Client) -> None:
    instance = rows.instance(status=InstanceStatus.COMPLETED, result=json.dumps("y" * 1_000_000))
    rows.events(
        instance, [("SideEffectRecorded", json.dumps({"command": 1, "value": "x" * 500_000}, separators=(",", ":")))]
    )
    page = get(viewer, instance)
    assert len(page) < 200_000
    assert "The first 65536 of 500024 characters." in page
    assert "The first 65536 of 1000002 characters." in page
    assert len(get(operator, instance)) < 20_000


def test_history_data_needs_the_payload_permission(viewer: Client, operator: Client) -> None:
    instance = rows.instance()
    rows.events(instance, [("SignalReceived", '{"name":"approval","value":"secret-7"}')])
    assert "secret-7" in get(viewer, instance)
    hidden = get(operator, instance)
    assert "secret-7" not in hidden
    assert "SignalReceived" in hidden and "<code>approval</code>" in hidden
    assert "Their data is hidden" in hidden


def test_payloads_are_not_even_fetched_without_the_permission(operator: Client) -> None:
    instance = rows.instance(input='"secret"')
    with CaptureQueriesContext(connection) as queries:
        get(operator, instance)
    column = re.escape(connection.ops.quote_name("input"))
    reading = [query["sql"] for query in queries if re.search(column, query["sql"])]
    assert reading
    assert not [sql for sql in reading if re.search(rf"SUBSTR\w*\([^,]*{column}", sql)]


def test_the_page_needs_the_view_permission(stranger: Client) -> None:
    instance = rows.instance()
    assert stranger.get(url(instance)).status_code == 403
    assert Client().get(url(instance)).status_code == 302


def test_an_unknown_instance_leads_back_to_the_index(viewer: Client, stranger: Client) -> None:
    for key in ("987654", "x", "9" * 40):
        address = reverse("admin:django_workflows_workflowinstance_change", args=[key])
        assert viewer.get(address).status_code == 302
        assert stranger.get(address).status_code == 403


def test_the_page_only_reads(viewer: Client) -> None:
    instance = rows.instance()
    assert viewer.post(url(instance), {"status": "failed"}).status_code == 405
    assert viewer.head(url(instance)).status_code == 200

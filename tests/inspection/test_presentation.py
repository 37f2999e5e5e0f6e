"""What rows and stored texts look like on a page: no database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_workflows.engine import events as ev
from django_workflows.failures import Failure
from django_workflows.inspection.presentation import (
    FAILURE_LIMIT,
    PAYLOAD_LIMIT,
    PREVIEW_LENGTH,
    display_activity,
    display_attributes,
    display_events,
    display_failure,
    display_payload,
    display_queues,
    event_subject,
    format_duration,
    relative_time,
    summarize_failure,
)
from django_workflows.models import ActivityTask

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0 ms"),
        (timedelta(seconds=-3), "0 ms"),
        (timedelta(milliseconds=45), "45 ms"),
        (timedelta(seconds=12.34), "12.3 s"),
        (timedelta(seconds=59.97), "1 min 00 s"),
        (timedelta(minutes=5, seconds=2), "5 min 02 s"),
        (timedelta(hours=3, minutes=7, seconds=59), "3 h 07 min"),
        (timedelta(days=12, hours=4, minutes=30), "12 d 4 h"),
    ],
)
def test_durations_show_their_two_largest_units(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


def test_times_are_before_or_after_now() -> None:
    assert relative_time(NOW + timedelta(seconds=5), NOW) == "in 5.0 s"
    assert relative_time(NOW - timedelta(minutes=2), NOW) == "2 min 00 s ago"


def test_json_is_indented_and_otherwise_untouched() -> None:
    shown = display_payload('{"b":1.50,"a":100000000000000000001,"b":"é\\u00e9"}')
    assert shown is not None and shown.is_indented and not shown.is_truncated
    assert shown.text == '{\n  "b": 1.50,\n  "a": 100000000000000000001,\n  "b": "é\\u00e9"\n}'


@pytest.mark.parametrize("text", ["", "no json", "[1,2", '{"a":NaN}', "[1] 2", "[" * 5000 + "]" * 5000, "\x00\x01"])
def test_what_is_not_json_is_shown_as_it_is_stored(text: str) -> None:
    shown = display_payload(text)
    assert shown is not None and not shown.is_indented
    assert shown.text == text


def test_no_payload_shows_nothing() -> None:
    assert display_payload(None) is None


def test_a_large_payload_is_cut_off_and_says_how_large_it_is() -> None:
    shown = display_payload("[" + "1," * PAYLOAD_LIMIT + "1]")
    assert shown is not None and shown.is_truncated
    assert len(shown.text) == PAYLOAD_LIMIT
    assert shown.length == 2 * PAYLOAD_LIMIT + 3


def test_the_beginning_of_a_payload_counts_as_cut_off() -> None:
    shown = display_payload("[1,2]", length=10_000_000)
    assert shown is not None and shown.length == 10_000_000
    # The first PAYLOAD_LIMIT characters were fetched: even where they happen to be JSON they are not the whole.
    assert shown.is_truncated and not shown.is_indented


def test_deep_nesting_cannot_blow_up_the_page() -> None:
    deep = '{"a":' * 8000 + "1" + "}" * 8000
    wide = "[" + ",".join(["[" * 90 + "]" * 90] * 300) + "]"
    for text in (deep, wide):
        shown = display_payload(text)
        assert shown is not None and shown.text == text


def test_brackets_inside_strings_are_no_nesting() -> None:
    shown = display_payload('["' + '[{\\"' * 1000 + '"]')
    assert shown is not None and shown.is_indented


def test_previews_are_short() -> None:
    shown = display_payload('"' + "x" * 500 + '"')
    assert shown is not None and len(shown.preview) == PREVIEW_LENGTH + 1


def raised() -> Failure:
    try:
        try:
            raise KeyError("card")
        except KeyError as error:
            raise ValueError("no card", {"order": 17}) from error
    except ValueError as error:
        return Failure.of(error)


def test_a_failure_shows_its_causes_in_order() -> None:
    shown = display_failure(raised().encode().decode())
    assert shown is not None
    assert [(one.relation, one.type) for one in shown] == [("", "ValueError"), ("Caused by", "KeyError")]
    assert "Traceback" in shown[0].traceback
    assert shown[0].arguments is not None and '"order": 17' in shown[0].arguments.text


def test_a_failed_group_shows_its_members() -> None:
    failure = Failure.of(ExceptionGroup("two failed", [ValueError("a"), OSError("b")]))
    shown = display_failure(failure.encode().decode())
    assert shown is not None
    assert [(one.relation, one.message) for one in shown] == [
        ("", "two failed"),
        ("One of the group", "a"),
        ("One of the group", "b"),
    ]


@pytest.mark.parametrize("text", ["", "<b>", "[1", "17", "null", "{}", '{"type":5}', '{"message":"x"}', "[" * 100_000])
def test_what_is_no_failure_is_recognised(text: str) -> None:
    assert display_failure(text) is None


def test_fields_of_the_wrong_type_are_shown_as_text() -> None:
    shown = display_failure('{"type":"E","message":17,"traceback":["x"],"args":"a","cause":"c","members":{"type":"M"}}')
    assert shown is not None and len(shown) == 1
    assert (shown[0].message, shown[0].traceback) == ("17", "['x']")


def test_lone_surrogates_cannot_break_the_page() -> None:
    shown = display_failure('{"type":"E\\ud800","message":"\\udfff","args":["\\ud800"],"traceback":"\\ud800"}')
    assert shown is not None and shown[0].arguments is not None
    "".join([shown[0].type, shown[0].message, shown[0].traceback, shown[0].arguments.text]).encode()
    assert event_subject('{"name":"\\ud800"}') == (None, "?")


def test_a_long_chain_of_causes_ends() -> None:
    failure: Any = None
    for number in range(200):
        failure = {"type": f"E{number}", "message": "", "cause": failure, "members": [failure, failure]}
        failure["members"] = failure["members"] if number < 3 else []
    shown = display_failure(json.dumps(failure))
    assert shown is not None and len(shown) == FAILURE_LIMIT


def test_a_summary_is_one_line() -> None:
    assert summarize_failure(None) is None
    assert summarize_failure(raised().encode().decode()) == "ValueError: ('no card', {'order': 17})"
    assert summarize_failure("gar<b>bage") == "Unreadable (10 characters)"
    assert len(summarize_failure(json.dumps({"type": "E", "message": "m" * 9000})) or "") < 600


def stored(event: ev.Event) -> str:
    return ev.encode_event(event)


@pytest.mark.parametrize(
    ("head", "subject"),
    [
        (stored(ev.InstanceStarted()), (None, "")),
        (stored(ev.SignalReceived(name='app"roval')), (None, 'app"roval')),
        (stored(ev.ActivityCompleted(command=3)), (3, "")),
        (stored(ev.UpdateRequested(update_id="0f", name="add", input=ev.NULL)), (None, "add")),
        (stored(ev.UpdateCompleted(command=3, update_id="0f", result=ev.NULL)), (3, "")),
        (stored(ev.PatchRecorded(command=0, patch="check-stock")), (None, "check-stock")),
        (stored(ev.InstanceTerminated(command=0, reason="x")), (None, "")),
        (stored(ev.TimerStarted(command=4, fire_at=NOW, name="reminder")), (4, "reminder")),
        (stored(ev.TimerStarted(command=4, fire_at=NOW)), (4, "")),
        (stored(ev.ActivityScheduled(command=5, name="shop.pay", input=ev.NULL, queue="q")), (5, "shop.pay")),
        ('{"command":5,"name":"shop.pay","input":["cut o', (5, "shop.pay")),
        ('{"command":5,"name":"shop.pa', (5, "")),
        ('{"command":99999999999999999999999}', (None, "")),
        ('{"name":"\\x"}', (None, "")),
        ("garbage", (None, "")),
        ("", (None, "")),
    ],
)
def test_the_subject_is_read_from_the_beginning_of_the_data(head: str, subject: tuple[int | None, str]) -> None:
    assert event_subject(head) == subject


def event_row(sequence: int, type: str, data: str, visible: bool = True) -> dict[str, Any]:
    row = {"sequence": sequence, "type": type, "time": NOW, "head": data, "data_length": len(data)}
    return row | ({"data_text": data} if visible else {})


def test_a_result_takes_the_name_of_its_command() -> None:
    rows = [
        event_row(1, "ActivityScheduled", '{"command":1,"name":"shop.pay","input":[],"queue":"q"}'),
        event_row(2, "ActivityCompleted", '{"command":1,"result":true}'),
        event_row(3, "ActivityCompleted", '{"command":2,"result":true}'),
    ]
    assert [(event.command, event.name) for event in display_events(rows)] == [
        (1, "shop.pay"),
        (1, "shop.pay"),
        (2, ""),
    ]


def test_an_event_without_its_text_has_only_a_length() -> None:
    [event] = display_events([event_row(1, "SignalReceived", '{"name":"approval","value":1}', visible=False)])
    assert event.data is None and event.length == 29 and event.name == "approval"


def activity(**fields: Any) -> ActivityTask:
    return ActivityTask(
        **{"command": 1, "name": "shop.pay", "queue": "default", "attempt": 1, "owner_id": None} | fields
    )


@pytest.mark.parametrize(
    ("available_at", "state"),
    [
        (None, "Running on web-1:7"),
        (NOW + timedelta(minutes=4), "Next attempt in 4 min 00 s"),
        (NOW - timedelta(minutes=4), "Waiting for a worker for 4 min 00 s"),
    ],
)
def test_an_activity_says_what_it_waits_for(available_at: datetime | None, state: str) -> None:
    shown = display_activity(
        activity(available_at=available_at, owner_id=7), {"default"}, lambda pk: f"web-1:{pk}", NOW
    )
    assert shown.state == state
    assert not shown.has_no_worker


def test_a_deferred_activity_waits_for_its_token_and_for_no_worker() -> None:
    shown = display_activity(activity(available_at=None), {"other"}, str, NOW)
    assert shown.state == "Deferred: to be completed with its token" and not shown.has_no_worker


def test_the_last_heartbeat_is_shown_with_the_details_that_were_fetched() -> None:
    task = activity(available_at=None, owner_id=7, heartbeat_at=NOW - timedelta(seconds=3))
    assert display_activity(task, (), str, NOW).details is None
    task.heartbeat_text, task.heartbeat_length = "[17]", 4  # type: ignore[attr-defined]
    shown = display_activity(task, (), str, NOW)
    assert shown.last_heartbeat == "3.0 s ago"
    assert shown.details is not None and shown.details.preview == "[17]"


def test_an_activity_whose_queue_nobody_serves_is_marked_unless_it_runs() -> None:
    waiting = display_activity(activity(available_at=NOW), {"other"}, str, NOW)
    running = display_activity(activity(available_at=None, owner_id=7), {"other"}, str, NOW)
    assert waiting.has_no_worker and not running.has_no_worker


def test_queues_and_attributes_of_any_shape_are_text() -> None:
    assert display_queues(["default", "db"]) == "default, db"
    assert display_queues({"odd": 1}) == "{'odd': 1}"
    assert display_attributes({}) == ""
    assert display_attributes({"name": "Ada"}) == '{\n  "name": "Ada"\n}'

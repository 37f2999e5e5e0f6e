"""What start() and signal() accept, and how they refuse the rest."""

from __future__ import annotations

import pytest
from django.test import override_settings

from django_workflows import (
    PayloadError,
    PayloadTooLarge,
    WorkflowFailed,
)
from django_workflows.models import InboxEvent, WorkflowInstance
from django_workflows.worker.worker import Worker
from tests.testapp.models import Effect

from .samples import double, echo, go, measure, nothing_is_stored, wait_for_go

# Arguments


@pytest.mark.parametrize("args, kwargs", [((), {}), (("a", 1.0, 2), {}), (("a",), {"colour": "red"})])
def test_wrong_arguments_are_a_type_error_and_store_nothing(args: tuple[object, ...], kwargs: dict[str, str]) -> None:
    with pytest.raises(TypeError, match=r"instances\.echo\(\)"):
        echo.start(*args, **kwargs)  # type: ignore[arg-type]
    assert nothing_is_stored()


def test_keyword_arguments_and_defaults_reach_the_workflow(worker: Worker) -> None:
    assert echo.start(value="by name").result(timeout=10) == "by name"


def test_argument_that_is_no_data_is_refused_with_parameter_and_type() -> None:
    with pytest.raises(PayloadError, match=r"argument 'value' of instances\.echo: .*QuerySet.*pass a list of"):
        echo.start(Effect.objects.all())
    assert nothing_is_stored()


@pytest.mark.parametrize(
    "value, reason",
    [
        ("a\x00b", "NUL"),
        (float("nan"), "nan"),
        ([float("inf")], "inf"),
        ({"a": "\ud800"}, "surrogate"),
        (2**65, "64 bits"),
    ],
)
def test_value_that_no_database_holds_is_refused_with_the_reason(value: object, reason: str) -> None:
    with pytest.raises(PayloadError, match=f"argument 'value' of instances.echo.*{reason}"):
        echo.start(value)
    assert nothing_is_stored()


@pytest.mark.parametrize("bad", ["a\x00b", float("nan"), "\ud800"])
def test_signal_value_that_no_database_holds_is_refused(bad: object) -> None:
    handle = wait_for_go.start()

    with pytest.raises(PayloadError, match="signal 'go'"):
        handle.signal(go, bad)  # type: ignore[arg-type]
    assert InboxEvent.objects.count() == 1


def test_value_of_a_megabyte_passes_through_arguments_activities_signals_and_results(worker: Worker) -> None:
    text = "é" * 500_000  # two bytes each

    assert measure.start(text).result(timeout=30) == text + "500000"
    handle = wait_for_go.start()
    handle.signal(go, text)
    assert handle.result(timeout=30) == text


@override_settings(DJANGO_WORKFLOWS={"MAX_PAYLOAD_BYTES": 1000})
def test_value_over_the_limit_is_refused_with_limit_and_setting(worker: Worker) -> None:
    with pytest.raises(PayloadTooLarge, match=r"instances\.echo.*limit of 1,000 bytes.*MAX_PAYLOAD_BYTES"):
        echo.start("x" * 1000)
    assert nothing_is_stored()
    handle = wait_for_go.start()
    with pytest.raises(PayloadTooLarge, match=r"signal 'go'.*MAX_PAYLOAD_BYTES"):
        handle.signal(go, "x" * 1000)
    with pytest.raises(WorkflowFailed, match=r"result of instances\.double.*MAX_PAYLOAD_BYTES"):
        double.start("x" * 900).result(timeout=10)


# Options of a start


def test_attributes_and_subject_are_stored_with_the_instance() -> None:
    effect = Effect.objects.create(key="x")
    handle = echo.using(subject=effect, attributes={"tier": "gold"}).start(1)

    assert handle.describe().attributes == {"tier": "gold"}
    assert [row.pk for row in WorkflowInstance.objects.for_subject(effect)] == [handle.describe().pk]


def test_unsaved_subject_is_refused() -> None:
    with pytest.raises(ValueError, match=r"saved object.*Effect"):
        echo.using(subject=Effect(key="x")).start(1)
    assert nothing_is_stored()


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        echo.using(colour="red")

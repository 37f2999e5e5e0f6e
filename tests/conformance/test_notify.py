"""PostgreSQL's NOTIFY as a carrier of wake-ups: cut off, misdirected, switched off."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction

from django_workflows import wakeups
from django_workflows.testing import running_worker
from django_workflows.wakeups.postgresql import NotifyCarrier
from tests.testapp.workflows import greet

from .elsewhere import listening_sessions, start_elsewhere
from .waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL"),
]

HARDLY_POLLING = {"POLL_INTERVAL_MIN": 60.0, "POLL_INTERVAL_MAX": 60.0}


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Wait until the listeners of earlier tests are gone."""
    eventually(lambda: not listening_sessions())


@pytest.fixture
def other_alias(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Settings of a second alias, `other`, to be changed: at first the same as the first."""
    config = {**connections.settings["default"], "OPTIONS": dict(connections.settings["default"]["OPTIONS"])}
    monkeypatch.setitem(connections.settings, "other", config)
    yield config


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_a_listener_that_was_cut_off_listens_again(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "django_workflows.worker")
    settings.DJANGO_WORKFLOWS = HARDLY_POLLING
    with running_worker():
        [first] = eventually(listening_sessions)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [first])
        eventually(lambda: listening_sessions() - {first}, 20)
        start_elsewhere("after")
        assert greet.handle("after").result(timeout=20) == "hello world"
    [warning] = messages(caplog, logging.WARNING)
    assert warning.startswith("wake-ups are not heard, polling goes on: ")
    assert "wake-ups are heard again" in messages(caplog, logging.INFO)


def test_a_worker_listens_where_it_is_told_to(settings: Any, other_alias: dict[str, Any]) -> None:
    other_alias["OPTIONS"]["application_name"] = "direct"
    settings.DJANGO_WORKFLOWS = HARDLY_POLLING | {"LISTEN_DATABASE": "other"}
    with running_worker():
        eventually(lambda: listening_sessions("direct"))
        assert not listening_sessions()
        start_elsewhere("told")
        assert greet.handle("told").result(timeout=20) == "hello world"


def test_hints_that_do_not_arrive_are_told_once_and_polling_goes_on(
    settings: Any, other_alias: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As through a pooler in transaction mode: LISTEN succeeds, and nothing is ever heard.
    other_alias["NAME"] = "postgres"
    monkeypatch.setattr("django_workflows.wakeups.postgresql._PROBE", 0.2)
    monkeypatch.setattr("django_workflows.worker.listener._SHORTEST_PAUSE", 0.1)
    settings.DJANGO_WORKFLOWS = {"LISTEN_DATABASE": "other"}
    with running_worker():
        [warning] = eventually(lambda: messages(caplog, logging.WARNING))
        assert 'does not arrive at DATABASES["other"]; is there a pooler in transaction mode?' in warning
        tries = 0

        def connect(alias: str) -> Any:
            nonlocal tries
            tries += alias == "other"
            return original(alias)

        original = wakeups.postgresql._connect
        monkeypatch.setattr("django_workflows.wakeups.postgresql._connect", connect)
        start_elsewhere("polled")
        assert greet.handle("polled").result(timeout=20) == "hello world"
        eventually(lambda: tries >= 2)
    assert len(messages(caplog, logging.WARNING)) == 1


def test_notify_and_listen_can_be_switched_off(settings: Any) -> None:
    settings.DJANGO_WORKFLOWS = {"LISTEN_DATABASE": None}
    assert wakeups.carrier_of("default") is None
    with running_worker():
        assert greet.start("hello").result(timeout=20) == "hello world"
        assert not listening_sessions()


def test_nothing_is_sent_inside_a_transaction() -> None:
    carrier = NotifyCarrier("default", "default")
    with carrier.listen() as receive:
        with transaction.atomic():
            carrier.send("inside")
        carrier.send("outside")
        assert receive(10) == ["outside"]


def test_hints_that_arrive_together_are_all_received() -> None:
    carrier = NotifyCarrier("default", "default")
    with carrier.listen() as receive:
        for hint in ("1", "2", "3"):
            carrier.send(hint)
        received: list[str] = []
        eventually(lambda: received.extend(receive(0.1)) or len(received) >= 3)
        assert received == ["1", "2", "3"]


def test_a_lost_connection_of_the_sender_does_not_disturb_it(caplog: pytest.LogCaptureFixture) -> None:
    pid = connection.connection.info.backend_pid
    with NotifyCarrier("default", "default").listen():
        pass
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
        eventually(lambda: not _is_alive(other, pid))
        wakeups.announce("default")
    finally:
        other.close()
        connection.close()
    [warning] = messages(caplog, logging.WARNING)
    assert warning.startswith("announcing work fails, polling will find it: OperationalError")


def _is_alive(other: Any, pid: int) -> bool:
    with other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])
        return cursor.fetchone() is not None

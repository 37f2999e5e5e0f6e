"""A Redis as carrier of wake-ups: down, restarted, hanging; it may only ever make things faster."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from django_workflows.testing import running_worker
from django_workflows.wakeups.redis_pubsub import RedisCarrier
from tests.testapp.workflows import greet

from .elsewhere import RedisServer, redis_server, start_elsewhere
from .waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

POLLING = {"WAKEUPS_CACHE": "redis"}
HARDLY_POLLING = POLLING | {"POLL_INTERVAL_MIN": 60.0, "POLL_INTERVAL_MAX": 60.0}


@pytest.fixture
def server(settings: Any) -> Iterator[RedisServer]:
    with redis_server() as server:
        settings.CACHES = server.settings
        yield server


def listeners(server: RedisServer) -> int:
    return server.listeners(RedisCarrier("redis", "default").channel)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_without_its_redis_a_worker_polls_and_nobody_is_disturbed(
    server: RedisServer, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    settings.DJANGO_WORKFLOWS = POLLING
    with running_worker():
        handles = [greet.start("hello") for _ in range(20)]
        assert [handle.result(timeout=20) for handle in handles] == ["hello world"] * 20
        eventually(lambda: len(warnings(caplog)) >= 2)
    announcing, hearing = sorted(warnings(caplog))
    assert announcing.startswith("announcing work fails, polling will find it: ConnectionError: Error")
    assert hearing.startswith("wake-ups are not heard, polling goes on: ConnectionError: Error")


def test_a_redis_that_comes_later_is_used(server: RedisServer, settings: Any) -> None:
    server.stop()
    settings.DJANGO_WORKFLOWS = HARDLY_POLLING
    with running_worker():
        server.start()
        eventually(lambda: listeners(server) == 1, 20)
        start_elsewhere("later", **server.environment)
        assert greet.handle("later").result(timeout=20) == "hello world"


def test_a_listener_survives_a_restart_of_its_redis(
    server: RedisServer, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_workflows.worker")
    settings.DJANGO_WORKFLOWS = HARDLY_POLLING
    with running_worker():
        eventually(lambda: listeners(server) == 1)
        server.stop()
        [warning] = eventually(lambda: warnings(caplog))
        assert warning.startswith("wake-ups are not heard, polling goes on: ConnectionError")
        server.start()
        eventually(lambda: listeners(server) == 1, 20)
        start_elsewhere("restarted", **server.environment)
        assert greet.handle("restarted").result(timeout=20) == "hello world"
    assert "wake-ups are heard again" in [record.getMessage() for record in caplog.records]


def test_a_redis_that_hangs_holds_up_one_caller_and_not_the_next(
    server: RedisServer, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DJANGO_WORKFLOWS = POLLING
    with running_worker():
        eventually(lambda: listeners(server) == 1)
        server.freeze()
        handles = [greet.start("hello") for _ in range(20)]
        assert [handle.result(timeout=20) for handle in handles] == ["hello world"] * 20
        server.thaw()
    [warning] = warnings(caplog)
    assert warning.startswith("announcing work fails, polling will find it: TimeoutError")


def test_a_listener_gives_up_a_connection_that_is_silent(
    server: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("django_workflows.wakeups.redis_pubsub._SILENCE", 0.3)
    monkeypatch.setattr("django_workflows.worker.listener._CHECK", 0.1)
    settings.DJANGO_WORKFLOWS = POLLING
    with running_worker():
        eventually(lambda: listeners(server) == 1)
        server.freeze()
        [warning] = eventually(lambda: warnings(caplog))
        assert "ConnectionError: Redis has not answered a PING for 0.3 s" in warning
        server.thaw()
        eventually(lambda: listeners(server) == 1, 20)


def test_a_listener_keeps_a_connection_on_which_nobody_speaks(
    server: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_workflows.wakeups.redis_pubsub._SILENCE", 0.1)
    settings.DJANGO_WORKFLOWS = POLLING
    with RedisCarrier("redis", "default").listen() as receive:
        for _ in range(10):
            assert receive(0.1) == []
        RedisCarrier("redis", "default").send("7")
        assert eventually(lambda: receive(0.1)) == ["7"]


def test_databases_on_one_redis_do_not_wake_each_other(
    server: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = RedisCarrier("redis", "default")
    channel = carrier.channel
    assert channel == f"django_workflows:{connection.vendor}:{connection.settings_dict['NAME']}"
    with carrier.listen() as receive:
        with monkeypatch.context() as elsewhere:
            elsewhere.setitem(connection.settings_dict, "NAME", "another")
            RedisCarrier("redis", "default").send("another")
        carrier.send("this")
        assert receive(10) == ["this"]


def test_the_prefix_of_the_cache_is_that_of_the_channel(settings: Any, server: RedisServer) -> None:
    settings.CACHES = {"redis": {**server.settings["redis"], "KEY_PREFIX": "shop"}}
    assert RedisCarrier("redis", "default").channel.startswith("shop:django_workflows:")

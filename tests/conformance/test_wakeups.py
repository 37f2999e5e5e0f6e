"""Workers hear of work in other processes where something can tell them, and find it by polling where nothing can."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import pytest
from django.db import connection

from django_workflows import activity, workflow
from django_workflows.testing import running_worker
from django_workflows.wakeups.announcer import Announcer
from django_workflows.wakeups.carrier import Receive
from django_workflows.wakeups.redis_pubsub import RedisCarrier
from django_workflows.worker.listener import CarrierListener
from tests.testapp.models import Effect
from tests.testapp.workflows import greet

from .elsewhere import listening_sessions, redis_server, start_elsewhere
from .waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

# What a worker of these tests does not hear, it does not find.
HARDLY_POLLING = {"POLL_INTERVAL_MIN": 60.0, "POLL_INTERVAL_MAX": 60.0}


@activity(name="wakeups.shout", queue="wakeups.activities")
def shout(text: str) -> str:
    return text.upper()


@activity(name="wakeups.remember", queue="wakeups.activities", atomic=True)
def remember(text: str) -> str:
    Effect.objects.create(key=text)
    return text


@workflow(name="wakeups.child", queue="wakeups.children")
async def child(text: str) -> str:
    return text + "!"


@activity(name="wakeups.shout_here")
def shout_here(text: str) -> str:
    return text.upper()


@workflow(name="wakeups.child_here")
async def child_here(text: str) -> str:
    return text + "!"


@workflow(name="wakeups.local")
async def local(text: str) -> str:
    """Need no other worker."""
    return await child_here(await shout_here(text))


@workflow(name="wakeups.delegate")
async def delegate(text: str) -> str:
    """Leave activities and a child to workers of other queues."""
    text = await remember(await shout(text))
    return await child.using(instance_id="chosen")(await child(text))


@dataclass
class Teller:
    """A way of telling workers: what another process needs for it, and how many workers it reaches now."""

    environment: dict[str, str]
    listeners: Callable[[], int]


@pytest.fixture(params=["database", "redis"])
def teller(request: pytest.FixtureRequest, settings: Any) -> Iterator[Teller]:
    """Make workers hardly poll, and tell them in each way there is on this database."""
    settings.DJANGO_WORKFLOWS = HARDLY_POLLING
    if request.param == "redis":
        with redis_server() as server:
            settings.CACHES = server.settings
            settings.DJANGO_WORKFLOWS = HARDLY_POLLING | {"WAKEUPS_CACHE": "redis"}
            channel = RedisCarrier("redis", "default").channel
            yield Teller(server.environment, lambda: server.listeners(channel))
    elif connection.vendor == "postgresql":
        eventually(lambda: not listening_sessions())  # those of earlier tests are gone
        yield Teller({}, lambda: len(listening_sessions()))
    elif connection.vendor == "sqlite":
        yield Teller({}, lambda: sys.maxsize)  # a worker watches from its first turn on
    else:
        pytest.skip("nothing but a Redis can tell workers on MariaDB")


def test_a_start_in_another_process_reaches_a_worker_that_hardly_polls(teller: Teller) -> None:
    with running_worker():
        eventually(lambda: teller.listeners() >= 1)
        start_elsewhere("elsewhere", **teller.environment)
        assert greet.handle("elsewhere").result(timeout=20) == "hello world"


def test_what_turns_leave_to_other_workers_reaches_them(teller: Teller, monkeypatch: pytest.MonkeyPatch) -> None:
    # A hint that follows another at once is left out, because who heard that one polls again soon; not so here.
    monkeypatch.setattr("django_workflows.wakeups.announcer._QUIET", 0.0)
    with (
        running_worker(activities=False),
        running_worker(["wakeups.activities"], workflows=False),
        running_worker(["wakeups.children"]),
    ):
        eventually(lambda: teller.listeners() >= 3)
        assert delegate.start("hello").result(timeout=20) == "HELLO!!"


def test_polling_alone_suffices(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DJANGO_WORKFLOWS = {"LISTEN_DATABASE": None}
    monkeypatch.setattr("django_workflows.wakeups._announce", lambda alias: None)
    monkeypatch.setattr("django_workflows.worker.listener.DataVersionListener.heard", lambda self: False)
    with (
        running_worker(activities=False),
        running_worker(["wakeups.activities"], workflows=False),
        running_worker(["wakeups.children"]),
    ):
        assert delegate.start("hello").result(timeout=20) == "HELLO!!"


# Announcing


class Recorder:
    """A carrier that keeps what it is given, and fails on demand."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.error: Exception | None = None
        self.arrived: SimpleQueue[str] = SimpleQueue()

    def send(self, hint: str) -> None:
        self.sent.append(hint)
        if self.error is not None:
            raise self.error

    @contextmanager
    def listen(self) -> Iterator[Receive]:
        yield lambda timeout: [self.arrived.get(timeout=timeout)]


def test_hints_of_one_sender_are_sent_once_every_few_milliseconds() -> None:
    carrier = Recorder()
    announcer = Announcer(carrier)
    started = time.monotonic()
    for _ in range(20_000):
        announcer.announce("")
    assert 1 <= len(carrier.sent) <= (time.monotonic() - started) / 0.005 + 1


def test_hints_of_two_senders_are_both_sent() -> None:
    carrier = Recorder()
    announcer = Announcer(carrier)
    announcer.announce("1")
    announcer.announce("2")
    assert carrier.sent == ["1", "2"]


def test_a_failing_carrier_is_told_once_and_not_tried_for_each_hint(caplog: pytest.LogCaptureFixture) -> None:
    carrier = Recorder()
    carrier.error = OSError("no route\nto host")
    announcer = Announcer(carrier)
    for number in range(100):
        announcer.announce(str(number))
    assert carrier.sent == ["0"]
    assert [record.getMessage() for record in caplog.records] == [
        "announcing work fails, polling will find it: OSError: no route to host"
    ]


def test_a_worker_does_not_hear_itself() -> None:
    carrier, woken = Recorder(), SimpleQueue[str]()
    listener = CarrierListener(carrier, "7", lambda: woken.put("woken"))
    assert woken.get(timeout=10), "it looks for work when it begins to listen"
    for hint in ("7", "7", "8"):
        carrier.arrived.put(hint)
    assert woken.get(timeout=10)
    eventually(carrier.arrived.empty)
    listener.stop()
    assert woken.empty()


def test_a_turn_that_leaves_nothing_to_others_announces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = Recorder()
    monkeypatch.setattr("django_workflows.wakeups._announcer", lambda alias: Announcer(carrier))
    with running_worker() as worker:
        handles = [greet.start("hello"), local.start("hello")]
        assert [handle.result(timeout=20) for handle in handles] == ["hello world", "HELLO!"]
        assert str(worker.id) not in carrier.sent
    assert carrier.sent[-1] == str(worker.id), "what it hands back when it stops"

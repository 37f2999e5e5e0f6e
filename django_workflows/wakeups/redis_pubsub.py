"""Hints by Redis's PUBLISH, through a cache of django-redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any

from django.core.cache import caches
from django.db import connections

from .carrier import Receive

_TIMEOUT = 0.4  # seconds to connect, and for an answer: a caller waits for this after its commit
_SILENCE = 15.0  # seconds without a message after which the listener asks whether the server is there


class RedisCarrier:
    """Publishes on one channel per database, on connections of its own with short timeouts."""

    def __init__(self, cache_alias: str, alias: str) -> None:
        self._cache_alias, self._alias = cache_alias, alias

    @property
    def channel(self) -> str:
        """The channel: two projects, or two test databases, on one Redis do not wake each other.

        Without host and port, which may differ between a web server and a worker of one database.
        """
        connection = connections[self._alias]
        prefix = caches.settings[self._cache_alias].get("KEY_PREFIX", "")
        name = f"django_workflows:{connection.vendor}:{connection.settings_dict['NAME']}"
        return f"{prefix}:{name}" if prefix else name

    @cached_property
    def _client(self) -> Any:
        """A client made as django-redis makes the cache's, whatever its classes, but with a pool of its own."""
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        options = {"socket_connect_timeout": _TIMEOUT, "socket_timeout": _TIMEOUT, "retry": Retry(NoBackoff(), 0)}
        cache: Any = caches.create_connection(self._cache_alias)
        client, factory = cache.client, cache.client.connection_factory
        factory.get_or_create_connection_pool = lambda parameters: factory.get_connection_pool(parameters | options)
        return client.get_client(write=True)

    def send(self, hint: str) -> None:
        self._client.publish(self.channel, hint)

    @contextmanager
    def listen(self) -> Iterator[Receive]:
        with closing(self._client.pubsub()) as pubsub:
            pubsub.subscribe(self.channel)
            subscription = _Subscription(pubsub)
            subscription.wait_until_confirmed()
            yield subscription.receive


class _Subscription:
    """Receives messages, and notices a connection that is dead without saying so."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub
        self._heard = time.monotonic()
        self._is_asked = False

    def wait_until_confirmed(self) -> None:
        message = self._pubsub.get_message(timeout=5.0)
        if message is None or message["type"] != "subscribe":
            raise ConnectionError(f"expected Redis to confirm the subscription, found {message!r}")

    def receive(self, timeout: float) -> list[str]:
        message = self._pubsub.get_message(timeout=timeout)
        now = time.monotonic()
        if message is not None:
            self._heard, self._is_asked = now, False
            return [_text(message["data"])] if message["type"] == "message" else []
        if now - self._heard > 2 * _SILENCE:
            raise ConnectionError(f"Redis has not answered a PING for {_SILENCE:g} s")
        if now - self._heard > _SILENCE and not self._is_asked:
            self._is_asked = True
            self._pubsub.ping()
        return []


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode(errors="replace")

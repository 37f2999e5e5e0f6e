"""A proxy between a worker and its server that sees each COMMIT, and may hold it, or cut the connection around it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

from django.db import connection

# How the message ends that commits, by itself or as the last statement of a turn's text; clients wait for its answer.
_COMMITS = {"postgresql": b"COMMIT\0", "mysql": b"\x03COMMIT"}


class At(Enum):
    """What becomes of a COMMIT."""

    PASS = "passed on"
    CUT_BEFORE = "the connection is cut before the server gets it"
    CUT_AFTER = "the connection is cut after the server has answered, and before the answer passes"


Rule = Callable[[bytes], At]


class Proxy:
    """Passes everything on, and asks `rule` about each COMMIT, with what its transaction has sent.

    The rule may take its time: the COMMIT waits. With `is_open` off nobody gets through, not even who is connected.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.rule: Rule = lambda transaction: At.PASS
        self.is_open = True
        self._upstream = upstream
        self._commit = _COMMITS[connection.vendor]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: list[_Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What makes another process go through this proxy, in clear text."""
        return {"DATABASE_PORT": str(self.port), "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}

    def close(self) -> None:
        self.is_open = False
        for link in self._links:
            link.cut()

    def stop(self) -> None:
        self._listener.close()
        self.close()

    def open(self) -> None:
        self.is_open = True

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                if server is None:
                    client.close()
                else:
                    self._links.append(_Link(client, server, self))

    def _connect(self) -> socket.socket | None:
        try:
            return socket.create_connection(self._upstream) if self.is_open else None
        except OSError:  # there is no server now
            return None

    def is_commit(self, message: bytes) -> bool:
        return message.endswith(self._commit)


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket, proxy: Proxy) -> None:
        self._client, self._server, self._proxy = client, server, proxy
        self._swallow = threading.Event()  # the next answer does not pass
        for pump in (self._pass_questions, self._pass_answers):
            threading.Thread(target=self._run, args=(pump,), daemon=True).start()

    def cut(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _run(self, pump: Callable[[], None]) -> None:
        try:
            with contextlib.suppress(OSError):
                pump()
        finally:
            self.cut()

    def _pass_questions(self) -> None:
        transaction = b""
        while message := self._client.recv(1 << 20):
            transaction += message
            if self._proxy.is_commit(message):
                decision = self._proxy.rule(transaction)
                transaction = b""
                if decision is At.CUT_BEFORE:
                    return
                if decision is At.CUT_AFTER:
                    self._swallow.set()
            self._server.sendall(message)

    def _pass_answers(self) -> None:
        while (message := self._server.recv(1 << 20)) and not self._swallow.is_set():
            self._client.sendall(message)


@contextmanager
def proxy() -> Iterator[Proxy]:
    """Run a proxy to the server of this run for the length of the block."""
    settings = connection.settings_dict
    running = Proxy((settings["HOST"], settings["PORT"]))
    try:
        yield running
    finally:
        running.stop()

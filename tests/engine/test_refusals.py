"""What replay cannot repeat is refused with words: the call by name, and where it belongs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from .harness import Run, forever, run


async def _open_connection() -> None:
    await asyncio.open_connection("localhost", 1)


async def _start_server() -> None:
    await asyncio.start_server(lambda reader, writer: None, "localhost", 0)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: asyncio.to_thread(print), "asyncio.to_thread"),
        (lambda: _loop().run_in_executor(None, print), "run_in_executor"),
        (lambda: sync_to_async(print)(), "sync_to_async"),
        (_open_connection, "asyncio.open_connection"),
        (_start_server, "create_server"),
        (lambda: asyncio.create_subprocess_exec("true"), "asyncio.create_subprocess_exec"),
        (lambda: asyncio.create_subprocess_shell("true"), "asyncio.create_subprocess_shell"),
        (lambda: asyncio.run(forever()), "asyncio.run"),
        (lambda: _loop().run_until_complete(forever()), "run_until_complete"),
        (lambda: _loop().run_forever(), "run_forever"),
        (lambda: _loop().add_signal_handler(signal.SIGUSR1, print), "add_signal_handler"),
        (lambda: _loop().call_soon_threadsafe(print), "call_soon_threadsafe"),
        (lambda: _loop().getaddrinfo("localhost", 1), "getaddrinfo"),
        (lambda: _loop().add_reader(0, print), "add_reader"),
        (lambda: _loop().stop(), "stop"),
        (lambda: _loop().close(), "close"),
    ],
)
def test_it_names_the_call_and_the_remedy(call: Callable[[], Any], named: str) -> None:
    async def main() -> None:
        await call()

    failure = run(main).failure
    assert failure.type == "django_workflows.exceptions.NotAllowedInWorkflowError"
    assert failure.message.startswith("workflow code called ")
    assert named in failure.message
    assert "activity" in failure.message


def test_it_can_be_caught() -> None:
    from django_workflows import NotAllowedInWorkflowError

    async def main() -> str:
        try:
            await asyncio.to_thread(print)
        except NotAllowedInWorkflowError:
            return "caught"
        return "ran"

    assert run(main).result == "caught"


def test_a_future_of_a_thread_cannot_be_awaited() -> None:
    elsewhere: Future[int] = Future()

    async def main() -> None:
        await asyncio.wrap_future(elsewhere)

    ran = Run(main)
    elsewhere.set_result(1)  # tells the loop through call_soon_threadsafe, which it refuses
    assert ran.closing is None
    ran.machine.dispose()

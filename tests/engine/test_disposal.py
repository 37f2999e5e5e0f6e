"""A machine that leaves memory takes no decisions, logs nothing and prints nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from django_workflows import Signal, workflow

from .activities import clean_up, decline, echo
from .harness import Run, forever

ROOT = Path(__file__).resolve().parents[2]
go: Signal[None] = Signal("go")

WAITING: list[Callable[[], Coroutine[Any, Any, Any]]] = []


def waiting(
    function: Callable[[], Coroutine[Any, Any, Any]],
) -> Callable[[], Coroutine[Any, Any, Any]]:
    WAITING.append(function)
    return function


@waiting
async def for_an_activity() -> None:
    await echo()


@waiting
async def for_a_signal_in_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(for_an_activity())
        group.create_task(forever())
        await go.receive()


@waiting
async def with_clean_up_that_decides() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await clean_up()


@waiting
async def with_clean_up_that_awaits() -> None:
    try:
        await forever()
    finally:
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.sleep(60)


@waiting
async def with_clean_up_that_makes_tasks() -> None:
    try:
        await forever()
    finally:
        await asyncio.gather(clean_up("a"), clean_up("b"))


@waiting
async def with_clean_up_in_a_task_group() -> None:
    try:
        await forever()
    finally:
        async with asyncio.TaskGroup() as group:
            group.create_task(clean_up("a"))
            group.create_task(clean_up("b"))


@waiting
async def with_clean_up_that_swallows() -> None:
    for _ in range(3):
        with suppress(BaseException):
            await go.receive()


@waiting
async def with_clean_up_that_raises() -> None:
    try:
        await forever()
    finally:
        raise SystemExit("from clean-up")


@waiting
async def with_a_side_effect_in_clean_up() -> None:
    try:
        await forever()
    finally:
        workflow.side_effect(lambda: print("decided"))


@waiting
async def with_tasks_that_wait_for_each_other() -> None:
    first = asyncio.create_task(forever())
    second = asyncio.create_task(asyncio.wait({first}))
    await asyncio.wait_for(asyncio.shield(second), 60)


@waiting
async def with_a_failed_task() -> None:
    task = asyncio.create_task(decline())
    await asyncio.wait([task])
    await go.receive()


@waiting
async def in_an_async_generator() -> None:
    async def values() -> Any:
        try:
            async for value in go:
                yield value
        finally:
            await clean_up()

    async for _ in values():
        pass


@waiting
async def with_an_async_generator_left_half_way() -> None:
    async def values() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await clean_up()

    async for _ in values():
        break
    await go.receive()


@waiting
async def continued_with_tasks_that_wait() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(with_clean_up_that_decides())
        group.create_task(with_clean_up_that_makes_tasks())
        await asyncio.sleep(60)
        await go.receive()


@pytest.mark.parametrize("main", WAITING, ids=lambda main: main.__name__)
def test_it_decides_and_prints_nothing(
    main: Callable[[], Coroutine[Any, Any, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    ran = Run(main)
    while (work := ran.next_work()) is not None and main.__name__ == "with_a_failed_task":
        ran.fail(work.command, ValueError("failed"))
    decided = len(ran.history)
    ran.machine.dispose()
    assert ran.signal("go").events == []
    ran.machine.dispose()
    machine_gone(ran)
    assert len(ran.history) == decided
    assert capfd.readouterr() == ("", "")


def machine_gone(ran: Run) -> None:
    del ran.machine
    gc.collect()


def hold_and_drop() -> None:
    for main in WAITING:
        ran = Run(main).finish()
        ran.machine.dispose()
        machine_gone(ran)


def test_a_process_that_drops_machines_prints_nothing_at_all() -> None:
    code = "from tests.engine.test_disposal import hold_and_drop; hold_and_drop()"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_machines_do_not_stay_in_memory() -> None:
    import weakref

    references = []
    for main in WAITING:
        ran = Run(main)
        references.append(weakref.ref(ran.machine))
        ran.machine.dispose()
        machine_gone(ran)
        del ran
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)

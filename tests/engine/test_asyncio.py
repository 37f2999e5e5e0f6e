"""The standard library's asyncio works as it is, and decides the same on every replay and under every hash seed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from django_workflows import workflow

from .activities import decline, echo
from .harness import Run, forever, run
from .hash_seeds import histories_under_hash_seeds

NAMES = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]

Scenario = Callable[[], Coroutine[Any, Any, Any]]
SCENARIOS: list[Scenario] = []


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


async def _value(name: str) -> str:
    await echo(name)
    return name


@scenario
async def gather() -> Any:
    return await asyncio.gather(*[_value(name) for name in NAMES])


@scenario
async def create_task() -> Any:
    tasks = [asyncio.create_task(_value(name)) for name in NAMES]
    return [await task for task in reversed(tasks)]


@scenario
async def task_group() -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_value(name)) for name in NAMES]
    return [task.result() for task in tasks]


@scenario
async def task_group_with_an_error_cancels_the_siblings() -> Any:
    async def sibling(name: str) -> None:
        try:
            await forever()
        finally:
            await echo(name)

    try:
        async with asyncio.TaskGroup() as group:
            for name in NAMES:
                group.create_task(sibling(name))
            group.create_task(decline())
    except ExceptionGroup as error:
        return str(error)


@scenario
async def timeout() -> Any:
    seen = []
    for name in NAMES[:4]:
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(3 if name in "ac" else 8)
                seen.append(name)
        except TimeoutError:
            await echo(name)
    return seen


@scenario
async def wait_for() -> Any:
    first = await asyncio.wait_for(_value("a"), 60)
    try:
        await asyncio.wait_for(forever(), 60)
    except TimeoutError:
        return [first, "timeout"]


@scenario
async def shield() -> Any:
    task = asyncio.create_task(_value("kept"))
    try:
        await asyncio.wait_for(asyncio.shield(task), 0)
    except TimeoutError:
        return await task


@scenario
async def queue() -> Any:
    waiting: asyncio.Queue[str] = asyncio.Queue(maxsize=2)
    found: list[str] = []

    async def consume(worker: str) -> None:
        while True:
            found.append(worker + await echo(await waiting.get()))
            waiting.task_done()

    consumers = [asyncio.create_task(consume(str(number))) for number in range(3)]
    for name in NAMES:
        await waiting.put(name)
    await waiting.join()
    for consumer in consumers:
        consumer.cancel()
    return found


@scenario
async def priority_queue() -> Any:
    waiting: asyncio.PriorityQueue[tuple[int, str]] = asyncio.PriorityQueue()
    for number, name in enumerate(NAMES):
        waiting.put_nowait((number % 3, name))
    return [(await waiting.get())[1] for _ in NAMES]


@scenario
async def event() -> Any:
    happened = asyncio.Event()
    order: list[str] = []

    async def wait(name: str) -> None:
        await happened.wait()
        order.append(await echo(name))

    async with asyncio.TaskGroup() as group:
        for name in NAMES:
            group.create_task(wait(name))
        await asyncio.sleep(1)
        happened.set()
    return order


@scenario
async def lock() -> Any:
    mutex = asyncio.Lock()
    order: list[str] = []

    async def use(name: str) -> None:
        async with mutex:
            order.append(f"+{name}")
            await asyncio.sleep(1)
            order.append(f"-{name}")

    await asyncio.gather(*[use(name) for name in NAMES[:4]])
    return order


@scenario
async def semaphore() -> Any:
    slots = asyncio.Semaphore(3)
    running: list[int] = [0, 0]

    async def use(name: str) -> None:
        async with slots:
            running[0] += 1
            running[1] = max(running)
            await echo(name)
            running[0] -= 1

    await asyncio.gather(*[use(name) for name in NAMES])
    return running[1]


@scenario
async def condition() -> Any:
    ready = asyncio.Condition()
    stock: list[str] = []
    got: list[str] = []

    async def take(name: str) -> None:
        async with ready:
            await ready.wait_for(lambda: bool(stock))
            got.append(name + stock.pop(0))

    async with asyncio.TaskGroup() as group:
        for name in NAMES[:4]:
            group.create_task(take(name))
        for item in "wxyz":
            item = await echo(item)
            async with ready:
                stock.append(item)
                ready.notify()
    return got


@scenario
async def barrier() -> Any:
    gate = asyncio.Barrier(3)
    order: list[str] = []

    async def come(name: str) -> None:
        await echo(name)
        await gate.wait()
        order.append(name)

    await asyncio.gather(*[come(name) for name in "xyz"])
    return order


@scenario
async def wait_first_completed() -> Any:
    tasks = {asyncio.create_task(_value(name), name=name) for name in NAMES}
    order: list[str] = []
    while tasks:
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            order.append(await echo(task.get_name()))
        if len(order) == 4:
            for task in tasks:
                await echo(f"cancel {task.get_name()}")
                task.cancel()
    return order


@scenario
async def wait_for_all_in_a_set() -> Any:
    done, _ = await asyncio.wait({asyncio.create_task(_value(name)) for name in NAMES})
    return [await echo(task.result()) for task in done]


@scenario
async def wait_with_a_timeout() -> Any:
    tasks = [asyncio.create_task(asyncio.sleep(seconds)) for seconds in (1, 100, 2)]
    done, pending = await asyncio.wait(tasks, timeout=10)
    for task in pending:
        task.cancel()
    return [len(done), len(pending)]


@scenario
async def wait_for_gathers() -> Any:
    groups = {asyncio.gather(_value(first), _value(second)) for first, second in itertools.pairwise(NAMES)}
    done, _ = await asyncio.wait(groups)
    return [await echo(group.result()) for group in done]


@scenario
async def as_completed_with_bare_coroutines() -> Any:
    return [await first for first in asyncio.as_completed([_value(name) for name in NAMES])]


@scenario
async def as_completed_in_another_order() -> Any:
    async def wait(seconds: int) -> int:
        await asyncio.sleep(seconds)
        return seconds

    return [await first for first in asyncio.as_completed([wait(seconds) for seconds in (3, 1, 2)])]


@scenario
async def as_completed_with_a_timeout() -> Any:
    found = []
    try:
        for first in asyncio.as_completed([asyncio.sleep(1, "one"), asyncio.sleep(100, "late")], timeout=10):
            found.append(await first)
    except TimeoutError:
        found.append("timeout")
    return found


@scenario
async def all_tasks() -> Any:
    for name in NAMES:
        asyncio.create_task(_value(name), name=name)  # noqa: RUF006
    return [await echo(task.get_name()) for task in asyncio.all_tasks()]


@scenario
async def call_soon_and_call_later() -> Any:
    order: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_later(2, order.append, "two")
    loop.call_later(1, order.append, "one")
    loop.call_soon(order.append, "soon")
    await asyncio.sleep(3)
    return order


@scenario
async def wait_condition() -> Any:
    order: list[str] = []

    async def wait(name: str) -> None:
        await workflow.wait_condition(lambda: len(order) == NAMES.index(name))
        order.append(await echo(name))

    await asyncio.gather(*[wait(name) for name in reversed(NAMES)])
    return order


@pytest.mark.parametrize("main", SCENARIOS, ids=lambda main: main.__name__)
def test_it_decides_the_same_on_every_replay(main: Scenario) -> None:
    assert run(main).closing is not None


EXPECTED: dict[Scenario, Any] = {
    gather: NAMES,
    create_task: NAMES[::-1],
    task_group: NAMES,
    timeout: ["a", "c"],
    wait_for: ["a", "timeout"],
    shield: "kept",
    event: NAMES,
    lock: ["+a", "-a", "+b", "-b", "+c", "-c", "+d", "-d"],
    semaphore: 3,
    condition: ["aw", "bx", "cy", "dz"],
    wait_with_a_timeout: [2, 1],
    as_completed_with_bare_coroutines: NAMES,
    as_completed_in_another_order: [1, 2, 3],
    as_completed_with_a_timeout: ["one", "timeout"],
    call_soon_and_call_later: ["soon", "one", "two"],
    wait_condition: NAMES,
}


@pytest.mark.parametrize("main", EXPECTED, ids=lambda main: main.__name__)
def test_it_gives_what_asyncio_gives(main: Scenario) -> None:
    assert Run(main).finish().result == EXPECTED[main]


def test_it_decides_the_same_under_every_hash_seed() -> None:
    printed = histories_under_hash_seeds(__name__)
    assert len(printed) == 1
    assert "as_completed" in printed.pop()


async def _elsewhere() -> list[str]:
    async def value(name: str) -> str:
        await asyncio.sleep(0)
        return name

    assert asyncio.current_task() in asyncio.all_tasks()
    assert len({asyncio.gather(value("x")), asyncio.gather(value("y"))}) == 2
    await asyncio.sleep(0.01)
    return sorted([await first for first in asyncio.as_completed([value("a"), value("b")])])


def test_outside_workflows_asyncio_is_untouched() -> None:
    assert asyncio.run(_elsewhere()) == ["a", "b"]


@pytest.mark.parametrize("not_iterable", ["coroutine", "future"])
def test_as_completed_refuses_a_single_awaitable_as_asyncio_does(not_iterable: str) -> None:
    async def main() -> str:
        one = asyncio.create_task(forever()) if not_iterable == "future" else forever()
        try:
            list(asyncio.as_completed(one))  # type: ignore[arg-type]
        except TypeError as error:
            return str(error)
        finally:
            one.cancel() if isinstance(one, asyncio.Task) else one.close()
        return ""

    assert "an iterable of " in run(main).result

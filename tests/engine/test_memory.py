"""A long history leaves nothing behind in the machine, and replaying it takes steps in proportion."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

from django_workflows import Signal
from django_workflows.engine import events as ev

from .activities import decline, echo
from .harness import START, History, Run, completed, new_machine, signal

number = Signal("number", int)

SIZE = 10_000

_BACK = ("host", "_loop", "main", "_decisions")  # what leads back to the machine or into asyncio


def sizes(holder: Any) -> dict[str, int]:
    """Return the sizes of all containers that an object of the engine holds."""
    found = {}
    for name, value in getattr(holder, "__dict__", {}).items():
        if hasattr(value, "__len__") and not isinstance(value, str | bytes):
            found[name] = len(value)
        elif type(value).__module__.startswith("django_workflows.engine") and name not in _BACK:
            found.update({f"{name}.{inner}": size for inner, size in sizes(value).items()})
    return found


def small(ran: Run) -> None:
    too_large = {name: size for name, size in sizes(ran.machine).items() if size > 5}
    assert too_large == {}
    assert len(sizes(ran.machine)) > 10


async def sequential(count: int) -> None:
    for _ in range(count):
        await echo()
    await number.receive()


def test_ten_thousand_sequential_activities() -> None:
    ran = Run(sequential, SIZE)
    for command in range(1, SIZE + 1):
        ran.complete(command)
    assert len(ran.history) == 2 * SIZE + 1
    small(ran)


def test_timeouts_signals_conditions_and_failed_tasks_leave_nothing() -> None:
    async def main() -> None:
        while True:
            try:
                async with asyncio.timeout(60):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(decline())
                        group.create_task(number.receive())
            except ExceptionGroup:
                pass
            await asyncio.wait([asyncio.create_task(number.receive()), asyncio.create_task(asyncio.sleep(1))])

    ran = Run(main)
    for _ in range(300):
        ran.finish_one()
        ran.signal("number", 1)
        ran.finish_one()
    small(ran)


def lines_run_by_replay(count: int) -> int:
    """Count the calls of Python functions in a replay: a measure of its time that is the same on every machine."""
    scheduled = ev.ActivityScheduled(command=1, name="engine.echo", input=completed(1).result, queue="default")
    history: History = [(START, ev.InstanceStarted()), (START, scheduled)]
    for command in range(1, count):
        history.append((START, completed(command)))
        history.append((START, ev.ActivityScheduled(**{**_fields(scheduled), "command": command + 1})))
    machine = new_machine(sequential, count)
    calls = 0

    def count_call(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1

    before = sys.getprofile()
    sys.setprofile(count_call)
    try:
        machine.replay(history)
    finally:
        sys.setprofile(before)
    assert machine.history_length == len(history)
    machine.dispose()
    return calls


def _fields(event: ev.ActivityScheduled) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_replay_of_ten_thousand_events_takes_linear_time() -> None:
    short, long = lines_run_by_replay(500), lines_run_by_replay(5000)
    assert long < 11 * short


def test_a_parallel_history_replays_in_linear_time() -> None:
    async def main(count: int) -> None:
        await asyncio.gather(*[echo() for _ in range(count)])
        await number.receive()

    def calls(count: int) -> int:
        ran = Run(main, count)
        ran.send(*[completed(command) for command in range(count, 0, -1)])
        machine = new_machine(main, count)
        seen = 0

        def count_call(frame: FrameType, event: str, argument: object) -> None:
            nonlocal seen
            seen += 1

        before = sys.getprofile()
        sys.setprofile(count_call)
        try:
            machine.replay(ran.history)
        finally:
            sys.setprofile(before)
        return seen

    assert calls(3000) < 11 * calls(300)


def test_many_unread_signals_are_all_that_is_held() -> None:
    ran = Run(sequential, 1)
    ran.send(*[signal("number", value) for value in range(1500)])
    assert len(ran.machine.signals.unread()) == 1500

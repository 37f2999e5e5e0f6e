"""What would differ on replay and must not: the clock, random numbers, side effects, facts about the instance."""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from datetime import UTC, date, datetime
from typing import Any

import pytest

from django_workflows import NotInWorkflowError, workflow
from django_workflows.engine import events as ev

from .activities import echo
from .harness import START, Run, assert_replays, new_machine, run


async def everything() -> list[Any]:
    found: list[Any] = []
    for _ in range(3):
        found += [
            str(workflow.now()), workflow.time(), workflow.random().random(), str(workflow.uuid4()),
            workflow.info().history_length, asyncio.get_running_loop().time(),
        ]  # fmt: skip
        await asyncio.sleep(1)
    return found


def test_everything_is_the_same_on_replay() -> None:
    ran = run(everything)
    again = Run(everything).finish()
    assert again.result == ran.result


def test_another_instance_has_other_random_numbers() -> None:
    machines = [new_machine(everything, execution_id=name) for name in ("a", "b")]
    assert machines[0].random.random() != machines[1].random.random()


def test_now_is_aware_and_does_not_go_back() -> None:
    async def main() -> list[datetime]:
        first = workflow.now()
        await echo()
        return [first, workflow.now()]

    ran = Run(main)
    ran.now = datetime(2025, 1, 1, tzinfo=UTC)  # the clock of another worker
    ran.complete(1)
    assert ran.result == [START.isoformat().replace("+00:00", "Z")] * 2
    assert_replays(ran)


def test_uuid4_is_a_version_4_uuid() -> None:
    async def main() -> str:
        return str(workflow.uuid4())

    assert uuid.UUID(run(main).result).version == 4


def test_a_side_effect_runs_once() -> None:
    calls = itertools.count(1)

    async def main() -> int:
        value = workflow.side_effect(lambda: next(calls))
        await echo()
        return value

    ran = Run(main).finish()
    assert (ran.result, next(calls)) == (1, 2)
    assert ran.types[1] == "SideEffectRecorded"


def test_a_side_effect_is_not_run_by_a_replay() -> None:
    calls: list[int] = []

    async def main() -> None:
        workflow.side_effect(lambda: calls.append(1))
        await echo()

    ran = Run(main)
    new_machine(main).replay(ran.history)
    assert calls == [1]


def test_a_side_effect_is_decoded_to_its_annotation_live_and_on_replay() -> None:
    def today() -> date:
        return date(2026, 3, 1)

    async def main() -> str:
        value = workflow.side_effect(today)
        await echo()
        return f"{type(value).__name__} {value}"

    assert run(main).result == "date 2026-03-01"


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("k"), StopIteration(), SystemExit(1)])
def test_a_side_effect_that_raises_raises_the_same_on_replay(error: BaseException) -> None:
    def broken() -> int:
        raise error

    async def main() -> str:
        try:
            workflow.side_effect(broken)
        except Exception as caught:
            await echo()
            return f"{type(caught).__name__}: {caught}"
        return "nothing"

    ran = run(main)
    assert ran.types[1:3] == ["SideEffectRecorded", "ActivityScheduled"]
    assert ran.result != "nothing"


def test_a_side_effect_whose_value_cannot_be_stored_says_so() -> None:
    async def main() -> None:
        workflow.side_effect(object)

    assert "side effect in tests.main" in run(main).failure.message


@pytest.mark.parametrize("use", [workflow.random, workflow.uuid4, lambda: workflow.side_effect(int)])
def test_a_side_effect_cannot_decide_or_draw_random_numbers(use: Any) -> None:
    async def main() -> None:
        workflow.side_effect(lambda: str(use()))

    failure = run(main).failure
    assert failure.type == "django_workflows.exceptions.NotInWorkflowError"
    assert "side effect" in failure.message


def test_info_tells_who_runs() -> None:
    async def main() -> list[Any]:
        info = workflow.info()
        return [info.instance_id, info.workflow, info.queue, info.history_length, workflow.version()]

    assert run(main).result == ["instance-1", "tests.main", "default", 1, ""]


def test_is_replaying_tells_only_of_recorded_history() -> None:
    seen: list[bool] = []

    async def main() -> None:
        seen.append(workflow.is_replaying())
        await echo()
        seen.append(workflow.is_replaying())

    ran = Run(main)
    machine = new_machine(main)
    machine.replay(ran.history)
    machine.step([ev.ActivityCompleted(1)], ran.now)
    assert seen == [False, True, False]
    assert workflow.is_replaying() is False


def test_the_logger_is_silent_on_replay_and_says_who_speaks(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        try:
            workflow.logger.warning("started")
            await echo()
        finally:
            workflow.logger.warning("ended")

    with caplog.at_level(logging.INFO):
        ran = Run(main)
        machine = new_machine(main)
        machine.replay(ran.history)
        machine.dispose()
    assert [record.message for record in caplog.records] == ["started"]
    assert caplog.records[0].instance_id == "instance-1"


@pytest.mark.parametrize(
    "call",
    [workflow.now, workflow.time, workflow.random, workflow.uuid4, workflow.info, lambda: workflow.side_effect(int)],
)
def test_outside_a_workflow_it_is_an_error_that_names_the_call(call: Any) -> None:
    with pytest.raises(NotInWorkflowError, match=r"workflow\.\w+\(\) can only be called inside a workflow"):
        call()

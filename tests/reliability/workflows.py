"""Workflows for tests that kill workers: slow enough to be caught in the middle."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from django_workflows import RetryPolicy, Signal, activity, workflow
from tests.testapp.models import Effect

_PATIENT = RetryPolicy(initial_interval=timedelta(seconds=0.1), max_interval=timedelta(seconds=1))


@activity(name="reliability.apply_once", atomic=True, retry=_PATIENT)
def apply_once(key: str) -> int:
    Effect.objects.create(key=key)
    time.sleep(0.05)  # open in the middle of its transaction
    return Effect.objects.filter(key=key).count()


@activity(name="reliability.compute", retry=_PATIENT)
def compute(number: int) -> int:
    time.sleep(0.02)
    return number + 1


@activity(name="reliability.successor", retry=_PATIENT)
def successor(number: int) -> int:
    return number + 1


@workflow(name="reliability.one_of_many")
async def one_of_many(number: int) -> int:
    return await successor(number)


@workflow(name="reliability.mixed")
async def mixed(name: str, steps: int) -> int:
    total = 0
    for step in range(steps):
        if step % 2:
            total += await compute(step)
        else:
            total += await apply_once(f"{name}-{step}")
    return total


@workflow(name="reliability.single_attempts")
async def single_attempts(name: str, steps: int) -> int:
    once = apply_once.using(retry=RetryPolicy(max_attempts=1))
    return sum([await once(f"{name}-{step}") for step in range(steps)])


number: Signal[int] = Signal("reliability.number", int)


@workflow(name="reliability.member")
async def member(key: str) -> int:
    """Wait for a signal, with an effect before and after."""
    total = await apply_once(f"{key} before")
    total += await number.receive()
    return total + await apply_once(f"{key} after")


@workflow(name="reliability.second_try", retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=50)))
async def second_try(key: str) -> int:
    attempt = workflow.info().attempt
    await apply_once(f"{key} {attempt}")
    if attempt == 1:
        raise LookupError("the first attempt")
    return attempt


@workflow(name="reliability.rounds")
async def rounds(key: str, done: int) -> int:
    await apply_once(f"{key} {done}")
    if done < 3:
        workflow.continue_as_new(key, done + 1)
    return done


@workflow(name="reliability.family")
async def family(name: str) -> int:
    """Children of every kind, which live on while workers die."""
    members = [member.using(instance_id=f"{name}-{place}").start_child(f"{name}-{place}") for place in range(3)]
    members += [member.start_child(f"{name} own {place}") for place in range(2)]
    member.using(instance_id=f"{name}-abandoned", parent_close="abandon").start_child(f"{name} abandoned")
    tried = asyncio.create_task(second_try.using(instance_id=f"{name}-tried")(f"{name} tried"))
    turned = asyncio.create_task(rounds(f"{name} turned", 0))
    for place, child in enumerate(members):
        await child.signal(number, place)
    total = sum(await asyncio.gather(*members))
    await workflow.handle(f"{name}-abandoned").signal(number, 100)
    return total + await tried + await turned

"""Workflows and activities that the conformance suite runs."""

from __future__ import annotations

from django_workflows import Signal, activity, workflow

approval = Signal("approval", bool)


@activity
def greeting(name: str) -> str:
    return f"{name} world"


@activity
async def async_greeting(name: str) -> str:
    return f"{name} world"


@workflow
async def greet(name: str) -> str:
    return await greeting(name)


@workflow
async def greet_async(name: str) -> str:
    return await async_greeting(name)

"""The four places where asyncio itself is not deterministic, or has no words for what went wrong in a workflow.

Each patch looks whether the running loop is a workflow's; anywhere else asyncio does what it always does.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from django_workflows.exceptions import NotAllowedInWorkflowError

from .loop import WorkflowLoop

_as_completed = asyncio.as_completed
_all_tasks = asyncio.all_tasks
_run = asyncio.run


def install_patches() -> None:
    """Put the functions below in the place of asyncio's own; calling it again changes nothing."""
    asyncio.as_completed = _ordered_as_completed
    asyncio.all_tasks = _ordered_all_tasks
    asyncio.run = _refusing_run
    asyncio.tasks._GatheringFuture.__hash__ = _numbered_hash  # type: ignore[attr-defined]


def _running_workflow_loop() -> WorkflowLoop | None:
    loop = asyncio._get_running_loop()
    return loop if isinstance(loop, WorkflowLoop) else None


def _ordered_as_completed(fs: Any, *args: Any, **kwargs: Any) -> Any:
    """Make each awaitable a numbered task in the given order; asyncio orders bare coroutines by address."""
    if _running_workflow_loop() is not None and not asyncio.isfuture(fs) and not asyncio.iscoroutine(fs):
        fs = [asyncio.ensure_future(awaitable) for awaitable in fs]
    return _as_completed(fs, *args, **kwargs)


def _ordered_all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
    """Build the set in creation order; asyncio goes through a table of all threads' tasks ordered by address."""
    running = _running_workflow_loop()
    if running is None or loop not in (None, running):
        return _all_tasks(loop)
    return {task for task in running.host.running_tasks() if not task.done()}


def _refusing_run(main: Any, **kwargs: Any) -> Any:
    """Say what to do instead; asyncio only says that it cannot."""
    if _running_workflow_loop() is None:
        return _run(main, **kwargs)
    if inspect.iscoroutine(main):
        main.close()
    raise NotAllowedInWorkflowError(
        "workflow code called asyncio.run, but a workflow runs on an event loop already; await the coroutine, or move "
        "this call into an activity"
    )


def _numbered_hash(future: Any) -> int:
    """Hash what `gather` returns by a number, as the loop's own futures do, so that sets of it have one order."""
    loop = future.get_loop()
    if not isinstance(loop, WorkflowLoop):
        return object.__hash__(future)
    try:
        number: int = future.number
    except AttributeError:
        loop.adopt(future)
        number = future.number
    return number

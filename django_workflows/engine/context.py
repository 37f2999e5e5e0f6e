"""Which machine is running: the one whose loop is this thread's running loop."""

from __future__ import annotations

import asyncio

from django_workflows.exceptions import NotInWorkflowError

from .loop import WorkflowLoop
from .machine import Machine


def current_machine() -> Machine | None:
    """Return the machine whose code is running in this thread, None outside workflow code."""
    loop = asyncio._get_running_loop()
    if isinstance(loop, WorkflowLoop):
        host = loop.host
        assert isinstance(host, Machine)
        return host
    return None


def require_machine(what: str) -> Machine:
    """Return the running machine; raises NotInWorkflowError naming `what` outside workflow code."""
    machine = current_machine()
    if machine is None:
        raise NotInWorkflowError(f"{what} can only be called inside a workflow; no workflow is running here")
    return machine

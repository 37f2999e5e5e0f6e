"""The logger for workflow code: silent while replaying, and it says which instance speaks."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from django_workflows.engine.context import current_machine


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger adapter that adds the instance's ids as `extra` and logs nothing during replay."""

    def isEnabledFor(self, level: int) -> bool:
        machine = current_machine()
        return (machine is None or not machine.is_replaying) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        machine = current_machine()
        if machine is not None:
            ids = {
                "workflow": machine.info.workflow,
                "instance_id": machine.info.instance_id,
                "execution_id": machine.info.execution_id,
            }
            kwargs["extra"] = {**ids, **(kwargs.get("extra") or {})}
        return msg, kwargs


logger = WorkflowLogger(logging.getLogger("django_workflows.workflow"), {})

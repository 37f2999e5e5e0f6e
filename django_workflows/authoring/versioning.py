"""What lets code change under running instances, and what they show of themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from django_workflows import payloads
from django_workflows.engine.context import require_machine
from django_workflows.engine.events import AttributesSet


class Versioning:
    """`patched` and `deprecate_patch`, the two ends of a change to workflow code."""

    def patched(self, patch: str) -> bool:
        """Tell whether this execution takes the new path of a change: those that began before it take the old one.

        The answer is the same for the rest of the execution. `patch` names the change, once and for ever.

        Example:
            if workflow.patched("send-receipt-first"):
                await send_receipt(order_id)
        """
        return require_machine("workflow.patched()").patched(patch)

    def deprecate_patch(self, patch: str) -> None:
        """Say that the old path of a change is gone from the code; `manage.py workflowpatches` says when it may go.

        Executions that have the patch replay with and without this call.
        """
        require_machine("workflow.deprecate_patch()").patched(patch, deprecated=True)


class Attributes:
    """What an instance shows of itself."""

    def set_attributes(self, **attributes: Any) -> None:
        """Set attributes of the instance's row, which the ORM reads and filters by without any worker.

        Others of the row stay as they are. Raises PayloadError for values that JSON cannot hold.

        Example: `workflow.set_attributes(stage="paid")`, then
        `WorkflowInstance.objects.filter(attributes__stage="paid")`.
        """
        machine = require_machine("workflow.set_attributes()")
        encoded = payloads.encode_plain(
            attributes, what=f"attributes of {machine.info.workflow}", limit=machine.payload_limit
        )
        machine.decide(AttributesSet(command=machine.next_command(), attributes=msgspec.Raw(encoded)))

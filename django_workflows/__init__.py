"""Durable workflows in a Django project's own database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .authoring.activity import Activity, register_activities
from .authoring.activity_namespace import activity
from .authoring.attempt import ActivityInfo
from .authoring.children import ChildHandle, ExternalHandle
from .authoring.handlers import QueryHandler, SignalHandler, UpdateHandler
from .authoring.namespace import workflow
from .authoring.select import Await, Default
from .authoring.signal import Signal
from .authoring.workflow import Workflow
from .authoring.workflow_class import WorkflowClass, workflow_of
from .converters import register_type
from .engine.channels import Channel, Receive, Send
from .engine.selection import Case
from .engine.steps import InstanceInfo
from .exceptions import (
    ActivityError,
    ActivityTimeout,
    AttemptNotRunning,
    ChannelClosed,
    ChildWorkflowTerminated,
    HeartbeatTimeout,
    HistoryLimitExceeded,
    InstanceAlreadyExists,
    InstanceNotFinished,
    InstanceNotFound,
    InstanceNotRunning,
    InvalidActivityToken,
    NondeterminismError,
    NotAllowedInActivityError,
    NotAllowedInWorkflowError,
    NotInActivityError,
    NotInWorkflowError,
    ObjectNotFound,
    PayloadError,
    PayloadTooLarge,
    RegistrationError,
    ResultInTransactionError,
    ScheduleToCloseTimeout,
    ScheduleToStartTimeout,
    StartToCloseTimeout,
    StepTimeLimitExceeded,
    UnknownHandlerError,
    UnknownWorkflowError,
    UpdateFailed,
    UpdateNotAnswered,
    UpdateRejected,
    WorkerLost,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowsError,
    WorkflowTerminated,
)
from .retries import RetryPolicy

if TYPE_CHECKING:
    from .handles import WorkflowHandle, get_handle
    from .models import InstanceStatus
    from .updates import UpdateHandle

__version__ = "0.1.0"

__all__ = [
    "Activity",
    "ActivityError",
    "ActivityInfo",
    "ActivityTimeout",
    "AttemptNotRunning",
    "Await",
    "Case",
    "Channel",
    "ChannelClosed",
    "ChildHandle",
    "ChildWorkflowTerminated",
    "Default",
    "ExternalHandle",
    "HeartbeatTimeout",
    "HistoryLimitExceeded",
    "InstanceAlreadyExists",
    "InstanceInfo",
    "InstanceNotFinished",
    "InstanceNotFound",
    "InstanceNotRunning",
    "InstanceStatus",
    "InvalidActivityToken",
    "NondeterminismError",
    "NotAllowedInActivityError",
    "NotAllowedInWorkflowError",
    "NotInActivityError",
    "NotInWorkflowError",
    "ObjectNotFound",
    "PayloadError",
    "PayloadTooLarge",
    "QueryHandler",
    "Receive",
    "RegistrationError",
    "ResultInTransactionError",
    "RetryPolicy",
    "ScheduleToCloseTimeout",
    "ScheduleToStartTimeout",
    "Send",
    "Signal",
    "SignalHandler",
    "StartToCloseTimeout",
    "StepTimeLimitExceeded",
    "UnknownHandlerError",
    "UnknownWorkflowError",
    "UpdateFailed",
    "UpdateHandle",
    "UpdateHandler",
    "UpdateNotAnswered",
    "UpdateRejected",
    "WorkerLost",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowClass",
    "WorkflowFailed",
    "WorkflowHandle",
    "WorkflowTerminated",
    "WorkflowsError",
    "activity",
    "get_handle",
    "register_activities",
    "register_type",
    "workflow",
    "workflow_of",
]

# Names that need Django's app registry: imported when first used, so that `workflows` modules can import this package
# while Django is still loading its apps.
_NEED_DJANGO = {
    "WorkflowHandle": "handles",
    "get_handle": "handles",
    "UpdateHandle": "updates",
    "InstanceStatus": "models",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_DJANGO:
        from importlib import import_module

        return getattr(import_module(f".{_NEED_DJANGO[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Every exception that django_workflows raises; the type says whose fault it is."""

from __future__ import annotations


class WorkflowsError(Exception):
    """Base class of all errors raised by django_workflows."""


# The caller's mistakes, found when it calls the client.


class InstanceAlreadyExists(WorkflowsError):
    """An open instance already has this instance_id."""


class InstanceNotFound(WorkflowsError):
    """No instance has this instance_id (or the bound execution is gone)."""


class InstanceNotRunning(WorkflowsError):
    """The instance is closed and takes no more signals or cancel requests."""


class InstanceNotFinished(WorkflowsError):
    """The instance is still open, so it cannot be removed."""


class InvalidActivityToken(WorkflowsError, ValueError):
    """A text is not a token that `activity.defer()` gave, or it was changed."""


class AttemptNotRunning(WorkflowsError):
    """The attempt that a token stands for is over: finished, timed out, or replaced by another one."""


class ResultInTransactionError(WorkflowsError):
    """Waiting for a result inside an open transaction would wait for itself."""


class UnknownHandlerError(WorkflowsError):
    """The workflow has no signal, query or update of this name."""


class UpdateRejected(WorkflowsError):
    """The workflow did not accept the update; what its validator raised is the `__cause__`."""


class UpdateFailed(WorkflowsError):
    """The update was accepted and its handler failed; the original exception is the `__cause__`."""


class UpdateNotAnswered(WorkflowsError):
    """The instance closed before it answered the update."""


class PayloadError(WorkflowsError, ValueError):
    """A value cannot be stored or cannot be decoded to the annotated type."""


class PayloadTooLarge(PayloadError):
    """An encoded value exceeds the configured limit."""


class ObjectNotFound(WorkflowsError):
    """A model object that was passed or returned has no row any more.

    `label` names the model, such as "shop.order"; `pk` is the primary key as it is stored; `where` says what named the
    object. An activity that fails with it is not tried again.
    """

    non_retryable = True

    def __init__(self, label: str, pk: object, where: str) -> None:
        super().__init__(label, pk, where)
        self.label = label
        self.pk = pk
        self.where = where

    def __str__(self) -> str:
        return f"no {self.label} with the primary key {self.pk!r} exists any more; {self.where} named it"


# The author's mistakes, found at import or while a workflow runs.


class RegistrationError(WorkflowsError):
    """A workflow or activity is declared wrongly or twice."""


class NotInWorkflowError(WorkflowsError):
    """Something that needs a running workflow was called outside one."""


class NotInActivityError(WorkflowsError):
    """Something that needs a running activity was called outside one."""


class NotAllowedInActivityError(WorkflowsError):
    """Activity code called something that this kind of activity cannot do."""

    non_retryable = True


class NotAllowedInWorkflowError(WorkflowsError):
    """Workflow code called something that cannot be replayed (I/O, threads, the ORM)."""


class ChannelClosed(WorkflowsError):
    """A channel that is closed takes no more values, and one that is drained too has none to give."""


class NondeterminismError(WorkflowsError):
    """The code took another decision than the one its history holds."""


class StepTimeLimitExceeded(WorkflowsError):
    """One step of a workflow ran longer than the STEP_TIME_LIMIT setting allows."""


class UnknownWorkflowError(WorkflowsError):
    """No workflow is registered under the name that an instance carries."""


class HistoryLimitExceeded(WorkflowsError):
    """The history of an execution reached HISTORY_LIMIT; workflows that go on for long continue as new."""


# What activities and child workflows raise into the workflow that awaits them.


class ActivityError(WorkflowsError):
    """An activity failed with an exception that cannot be rebuilt here.

    `type` is the dotted name of the original class, `message` its text, `traceback` its formatted traceback.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:
        super().__init__(type, message, traceback)
        self.type = type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class ActivityTimeout(WorkflowsError, TimeoutError):
    """An activity was over one of its timeouts; the subclass says which."""


class ScheduleToStartTimeout(ActivityTimeout):
    """An attempt waited for a worker for too long; the activity is not tried again."""


class StartToCloseTimeout(ActivityTimeout):
    """The last permitted attempt ran for too long."""


class ScheduleToCloseTimeout(ActivityTimeout):
    """All attempts of an activity together took too long."""


class HeartbeatTimeout(ActivityTimeout):
    """The last permitted attempt sent no heartbeat for too long."""


class WorkerLost(WorkflowsError):
    """The worker that ran the last permitted attempt of an activity died."""


class ChildWorkflowTerminated(WorkflowsError):
    """A child workflow was terminated or removed before it had a result."""


# How an instance ended, raised by WorkflowHandle.result().


class WorkflowFailed(WorkflowsError):
    """The instance failed; the original exception is the `__cause__` where it could be rebuilt."""


class WorkflowCancelled(WorkflowsError):
    """The instance was cancelled."""


class WorkflowTerminated(WorkflowsError):
    """The instance was terminated."""

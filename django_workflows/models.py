"""The tables: one wide row per execution, narrow hot rows for what is live.

No foreign key constraints join these tables, and none is needed: a row whose chain has no open row is
garbage for whoever meets it (docs/architecture.md, "Leftovers"). Only `django_workflows.store` writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
else:
    _CharField = models.CharField  # not subscriptable at run time


class InstanceStatus(models.TextChoices):
    """The states of a workflow instance; all but RUNNING and BLOCKED are closed."""

    RUNNING = "running", _("Running")
    BLOCKED = "blocked", _("Blocked")
    COMPLETED = "completed", _("Completed")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")
    TERMINATED = "terminated", _("Terminated")
    TIMED_OUT = "timed_out", _("Timed out")
    CONTINUED_AS_NEW = "continued_as_new", _("Continued as new")

    @property
    def is_closed(self) -> bool:
        return self not in (InstanceStatus.RUNNING, InstanceStatus.BLOCKED)


class KeyField(_CharField):
    """A short ASCII key that is compared byte by byte on every database."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 32
        super().__init__(*args, **kwargs)

    def get_prep_value(self, value: Any) -> Any:
        """Return the key as ASCII: what is not is nobody's key, but databases refuse even to look for it."""
        value = super().get_prep_value(value)
        if isinstance(value, str) and not (value.isascii() and "\0" not in value):
            return value.encode("ascii", "backslashreplace").decode().replace("\0", "\\x00")
        return value

    def db_parameters(self, connection: Any) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            # The hot statements join on JSON_TABLE columns of this very collation; another one loses the index.
            parameters["type"] = "varchar(32) CHARACTER SET ascii"
            parameters["collation"] = "ascii_bin"
        return parameters


class WorkflowInstanceQuerySet(models.QuerySet["WorkflowInstance"]):
    """Queries over instances, open and closed."""

    def open(self) -> WorkflowInstanceQuerySet:
        return self.filter(status__in=[InstanceStatus.RUNNING, InstanceStatus.BLOCKED])

    def for_subject(self, subject: models.Model) -> WorkflowInstanceQuerySet:
        """Return the instances that were started with `using(subject=subject)`."""
        return self.filter(
            subject_type=ContentType.objects.db_manager(self.db).get_for_model(subject), subject_pk=str(subject.pk)
        )


class WorkflowInstance(models.Model):
    """One execution of a workflow: written at start, at status changes and at close, never in between."""

    id = models.BigAutoField(primary_key=True)
    instance_id = models.CharField(_("instance ID"), max_length=255)
    instance_key = KeyField(editable=False)
    execution_id = KeyField(_("execution ID"), unique=True)
    chain_id = models.BigIntegerField(null=True, editable=False)  # id of the first execution; null on the first itself
    name = models.CharField(_("workflow"), max_length=200)
    version = models.CharField(max_length=100, blank=True)
    queue = models.CharField(max_length=100)
    status = models.CharField(max_length=20, choices=InstanceStatus.choices, default=InstanceStatus.RUNNING)
    priority = models.SmallIntegerField(default=0)
    parent_id = models.BigIntegerField(null=True, editable=False)
    parent_command = models.IntegerField(null=True, editable=False)
    root_id = models.BigIntegerField(null=True, editable=False)
    subject_type = models.ForeignKey(
        ContentType, null=True, blank=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    subject_pk = models.CharField(max_length=64, blank=True)
    attributes = models.JSONField(default=dict, blank=True)
    options = models.TextField(default="{}", editable=False)  # JSON: retry policy, parent_close, propagated context
    attempt = models.IntegerField(default=1)  # of the workflow's retry policy
    input = models.TextField()
    result = models.TextField(null=True)
    failure = models.TextField(null=True)  # why it failed, or why it is blocked now
    history_length = models.IntegerField(default=0)  # set at close; the open row has it before
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True)

    objects = WorkflowInstanceQuerySet.as_manager()

    class Meta:
        verbose_name = _("workflow instance")
        verbose_name_plural = _("workflow instances")
        ordering = ["-id"]
        permissions = [("view_payload", _("Can view the inputs, results and failures of workflow instances"))]
        indexes = [
            models.Index(fields=["instance_key", "id"], name="dwf_instance_key"),
            models.Index(fields=["status", "id"], name="dwf_instance_status"),
            models.Index(fields=["name", "status", "id"], name="dwf_instance_name"),
            models.Index(fields=["parent_id"], name="dwf_instance_parent"),
            models.Index(fields=["root_id"], name="dwf_instance_root"),
            models.Index(fields=["chain_id"], name="dwf_instance_chain"),
            models.Index(fields=["subject_type", "subject_pk"], name="dwf_instance_subject"),
            models.Index(fields=["status", "closed_at", "id"], name="dwf_instance_prune"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.instance_id}"

    @property
    def chain(self) -> int:
        """The id of the first execution of this chain."""
        return self.chain_id or self.id


class OpenInstance(models.Model):
    """The hot row of an open chain: its primary key is what makes one open instance per instance_id."""

    open_key = KeyField(primary_key=True)
    chain_id = models.BigIntegerField(unique=True)
    instance_id = models.BigIntegerField(unique=True)  # id of the current execution's WorkflowInstance
    queue = models.CharField(max_length=100)
    owner_id = models.BigIntegerField(null=True)
    history_length = models.IntegerField(default=0)
    crashes = models.SmallIntegerField(default=0)  # claims that never came back
    blocks = models.SmallIntegerField(default=0)  # failed steps in a row; not 0 = blocked

    class Meta:
        indexes = [models.Index(fields=["owner_id"], name="dwf_open_owner")]


class HistoryEvent(models.Model):
    """One event of one execution's history, append only."""

    pk = models.CompositePrimaryKey("instance_id", "sequence")
    instance_id = models.BigIntegerField()
    sequence = models.IntegerField()
    type = models.CharField(max_length=40)
    time = models.DateTimeField()
    data = models.TextField()


class InboxEvent(models.Model):
    """What waits for an instance; the row itself is the wake-up."""

    id = models.BigAutoField(primary_key=True)
    chain_id = models.BigIntegerField()
    instance_id = models.BigIntegerField(null=True)  # set: for that execution only
    type = models.CharField(max_length=40)
    data = models.TextField()
    queue = models.CharField(max_length=100, null=True)  # null: parked while its instance is blocked
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [
            models.Index(fields=["queue", "id"], name="dwf_inbox_queue"),
            models.Index(fields=["chain_id", "id"], name="dwf_inbox_chain"),
        ]


class WorkflowUpdate(models.Model):
    """A message with an answer: what was asked of an instance, and what came of it."""

    class Status(models.TextChoices):
        PENDING = "pending", _("Pending")
        ACCEPTED = "accepted", _("Accepted")
        COMPLETED = "completed", _("Completed")
        FAILED = "failed", _("Failed")
        REJECTED = "rejected", _("Rejected")

        @property
        def is_answered(self) -> bool:
            return self not in (WorkflowUpdate.Status.PENDING, WorkflowUpdate.Status.ACCEPTED)

    update_id = KeyField(_("update ID"), primary_key=True)
    chain_id = models.BigIntegerField()
    name = models.CharField(max_length=200)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    input = models.TextField()
    result = models.TextField(null=True)
    failure = models.TextField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    answered_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["chain_id", "created_at"], name="dwf_update_chain")]

    def __str__(self) -> str:
        return f"{self.name} {self.update_id}"


class ActivityTask(models.Model):
    """An activity that has not finished: deleted with its result."""

    pk = models.CompositePrimaryKey("instance_id", "command")
    instance_id = models.BigIntegerField()
    command = models.IntegerField()
    chain_id = models.BigIntegerField()
    name = models.CharField(max_length=200)
    queue = models.CharField(max_length=100)
    workflow_queue = models.CharField(max_length=100)  # where the result goes
    priority = models.SmallIntegerField(default=0)
    attempt = models.IntegerField(default=0)
    crashes = models.SmallIntegerField(default=0)
    owner_id = models.BigIntegerField(null=True)
    available_at = models.DateTimeField(null=True)  # null: leased to owner_id, or without an owner: deferred
    expires_at = models.DateTimeField(null=True)  # when it times out; null while it is leased: its worker knows
    scheduled_at = models.DateTimeField()
    last_failure = models.TextField(null=True)
    heartbeat = models.TextField(null=True)  # the details that an attempt reported last, as a payload
    heartbeat_at = models.DateTimeField(null=True)
    options = models.TextField()  # JSON: retry policy, timeouts and propagated context of this call
    input = models.TextField()

    class Meta:
        indexes = [
            models.Index(fields=["queue", "available_at"], name="dwf_activity_ready"),
            models.Index(fields=["expires_at"], name="dwf_activity_expires"),
        ]


class Timer(models.Model):
    """A due time: of a workflow's timer, or (command 0) of the next try of a blocked instance."""

    pk = models.CompositePrimaryKey("instance_id", "command")
    instance_id = models.BigIntegerField()
    command = models.IntegerField()
    chain_id = models.BigIntegerField()
    fire_at = models.DateTimeField()
    wake_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["wake_at"], name="dwf_timer_wake")]


class Worker(models.Model):
    """One incarnation of a worker process; its row lock is the fence of everything it writes."""

    class State(models.TextChoices):
        ALIVE = "alive", _("Alive")
        DEAD = "dead", _("Dead")

    id = models.BigAutoField(primary_key=True)
    host = models.CharField(max_length=255)
    process_id = models.IntegerField()
    version = models.CharField(max_length=100, blank=True)
    queues = models.JSONField(default=list)
    slots = models.IntegerField(default=0)
    state = models.CharField(max_length=5, choices=State.choices, default=State.ALIVE)
    beat = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField()
    started_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["state", "lease_until"], name="dwf_worker_lease")]

    def __str__(self) -> str:
        return f"{self.host}:{self.process_id}"

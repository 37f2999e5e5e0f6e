"""Starting instances inside the caller's transaction: inserts only, so no turn ever waits for them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, OperationalError, transaction
from django.db.backends.utils import CursorWrapper

from django_workflows.conf import get_settings
from django_workflows.engine.events import CarriedSignal, InstanceOptions, InstanceStarted, encode_event
from django_workflows.exceptions import InstanceAlreadyExists
from django_workflows.keys import key_of
from django_workflows.models import InboxEvent, InstanceStatus, OpenInstance, WorkflowInstance

from . import closing
from .bulk import insert_executions, insert_open, insert_paged
from .database import Database, DatabaseNow
from .work import INBOX_COLUMNS

T = TypeVar("T")

_BATCH = 500
_TRIES = 5


@dataclass(frozen=True)
class NewInstance:
    """What an instance is started with."""

    name: str
    queue: str
    input: str
    instance_id: str | None = None  # None: one of our own making
    version: str = ""
    subject: tuple[str, str] | None = None  # model label and primary key
    attributes: dict[str, Any] = field(default_factory=dict)
    options: InstanceOptions = field(default_factory=InstanceOptions)
    signals: tuple[CarriedSignal, ...] = ()  # that wait for it when it begins

    def as_row(self) -> WorkflowInstance:
        execution_id = uuid.uuid4().hex
        instance_id = execution_id if self.instance_id is None else self.instance_id
        return WorkflowInstance(
            instance_id=instance_id,
            instance_key=key_of(instance_id),
            execution_id=execution_id,
            name=self.name,
            version=self.version,
            queue=self.queue,
            input=self.input,
            attributes=self.attributes,
            options=self.options.encode(),
            **subject_columns(self.subject),
            # The database's clock: workers time the first step by it.
            created_at=DatabaseNow(),
        )


def subject_columns(subject: tuple[str, str] | None) -> dict[str, Any]:
    """Return the columns that link an instance to a model object."""
    if subject is None:
        return {}
    label, pk = subject
    return {"subject_type_id": ContentType.objects.get_for_model(apps.get_model(label)).pk, "subject_pk": pk}


def started_event(**fields: Any) -> InstanceStarted:
    """Return the first event of an execution."""
    return InstanceStarted(suggest_at=get_settings().history_warning, **fields)


def start(database: Database, new: NewInstance, on_conflict: str) -> WorkflowInstance:
    """Insert an instance, its open row and its first inbox event; raises InstanceAlreadyExists.

    `on_conflict` is "raise", "use_existing" or "terminate_existing".
    """
    row, existing = start_or_find(database, new, on_conflict)
    # Raised out here: an error that leaves an atomic block would break the caller's transaction.
    if existing is None:
        return row
    if on_conflict == "use_existing":
        return existing
    raise already_open(row, "pass on_conflict='use_existing' or 'terminate_existing' to using() to change that")


def start_or_find(
    database: Database, new: NewInstance, on_conflict: str
) -> tuple[WorkflowInstance, WorkflowInstance | None]:
    """Start an instance; return its row, and the open one of its id, in whose place it was not started."""
    database.dialect.refuse_large(new.input)

    def attempt() -> tuple[WorkflowInstance, WorkflowInstance | None]:
        row = new.as_row()
        is_new_id = new.instance_id is None
        return row, insert_or_find(database, row, on_conflict, signals=new.signals, is_new_id=is_new_id)

    return repeat_deadlocks(database, attempt)


def repeat_deadlocks(database: Database, attempt: Callable[[], T]) -> T:
    """Run a transaction, again where MySQL ends it as a deadlock, as it may do to those that wait for one row."""
    # Inside a transaction of the caller's the whole of it is gone then, and only the caller can repeat it.
    tries = 1 if database.connection.in_atomic_block else _TRIES
    while True:
        try:
            with database.atomic():
                return attempt()
        except OperationalError as error:
            tries -= 1
            if not tries or not database.dialect.is_deadlock(error):
                raise


def insert_or_find(
    database: Database, row: WorkflowInstance, on_conflict: str, *, signals: Iterable[CarriedSignal] = (),
    is_new_id: bool = False,
) -> WorkflowInstance | None:  # fmt: skip
    """Insert the instance; return the open one that was left in its place, None without one."""
    if not is_new_id and on_conflict != "terminate_existing":
        existing = _find_open(database, row.instance_key)
        if existing is not None:
            return existing
    row.save(using=database.alias, force_insert=True)
    while not _insert_open(database, row):
        # Somebody else won since we looked; the insert is tried again where the winner has closed meanwhile.
        if on_conflict == "terminate_existing":
            if _replace_open(database, row):
                break
        elif (winner := _find_winner(database, row.instance_key)) is not None:
            WorkflowInstance.objects.using(database.alias).filter(pk=row.pk).delete()
            return winner
    _insert_start(database, row, signals)
    return None


def start_many(database: Database, news: Sequence[NewInstance]) -> list[WorkflowInstance]:
    """Start all or none in a few statements; raises InstanceAlreadyExists naming an id that is open."""
    rows = [new.as_row() for new in news]
    # In key order: two callers that start the same ids in opposite order would deadlock.
    ordered = sorted(rows, key=lambda row: row.instance_key)
    _refuse_open(database, [row for row, new in zip(rows, news, strict=True) if new.instance_id is not None])
    try:
        # With a savepoint, so that the caller's transaction survives a conflict.
        with transaction.atomic(using=database.alias), database.cursor() as cursor:
            _insert_many(database, cursor, ordered)
    except IntegrityError as error:
        raise InstanceAlreadyExists(
            "one of the instance_ids given to start_many() was opened at the same moment; nothing was started"
        ) from error
    return rows


def _refuse_open(database: Database, rows: list[WorkflowInstance]) -> None:
    by_key = {row.instance_key: row for row in rows}
    if len(by_key) < len(rows):
        raise InstanceAlreadyExists("an instance_id is given twice to start_many(); nothing was started")
    keys = list(by_key)
    for start in range(0, len(keys), _BATCH):
        page = OpenInstance.objects.using(database.alias).filter(pk__in=keys[start : start + _BATCH])
        taken = page.values_list("pk", flat=True).first()
        if taken is not None:
            raise already_open(by_key[taken], "nothing was started")


def _insert_many(database: Database, cursor: CursorWrapper, rows: list[WorkflowInstance]) -> None:
    now = database.dialect.now(cursor)
    for row in rows:
        row.created_at = now
    insert_executions(database, cursor, rows)
    insert_open(database, cursor, rows)
    started, time = encode_event(started_event()), database.dialect.to_time(now)
    events = [(row.pk, row.pk, InstanceStarted.__name__, started, row.queue, time) for row in rows]
    insert_paged(database, cursor, InboxEvent, INBOX_COLUMNS, events)


def _insert_start(database: Database, row: WorkflowInstance, signals: Iterable[CarriedSignal]) -> None:
    InboxEvent.objects.using(database.alias).create(
        chain_id=row.chain, instance_id=row.pk, type=InstanceStarted.__name__,
        data=encode_event(started_event(signals=list(signals))), queue=row.queue, created_at=DatabaseNow(),
    )  # fmt: skip


def _find_open(database: Database, key: str) -> WorkflowInstance | None:
    opened = OpenInstance.objects.using(database.alias).filter(pk=key).values("instance_id")
    return WorkflowInstance.objects.using(database.alias).filter(pk__in=opened).first()


def _find_winner(database: Database, key: str) -> WorkflowInstance | None:
    """Read the instance that a lost insert met; under REPEATABLE READ only locking reads can see it."""
    found = _find_open(database, key)
    if found is None:
        open_row = OpenInstance.objects.using(database.alias).select_for_update().filter(pk=key).first()
        if open_row is not None:
            instances = WorkflowInstance.objects.using(database.alias)
            found = instances.select_for_update().filter(pk=open_row.instance_id).first()
    return found


def _insert_open(database: Database, row: WorkflowInstance) -> bool:
    """Insert the open row; return False when its key is taken, leaving the caller's transaction usable."""
    columns = ("open_key", "chain_id", "instance_id", "queue", "history_length", "crashes", "blocks")
    values = (row.instance_key, row.chain, row.pk, row.queue, 0, 0, 0)
    with database.cursor() as cursor:
        return database.dialect.insert_if_absent(cursor, OpenInstance, columns, values)


def _replace_open(database: Database, row: WorkflowInstance) -> bool:
    """Terminate the open execution and give its open row to the new one; return False when it has just closed."""
    open_rows = OpenInstance.objects.using(database.alias).filter(pk=row.instance_key)
    existing = open_rows.select_for_update().first()
    if existing is None:
        return False
    closing.close_terminated(database, existing, reason="replaced by a new start with on_conflict='terminate_existing'")
    open_rows.update(
        chain_id=row.chain, instance_id=row.pk, queue=row.queue, owner_id=None, history_length=0, crashes=0, blocks=0
    )
    return True


def already_open(row: WorkflowInstance, advice: str) -> InstanceAlreadyExists:
    """Return the error for an instance_id that is taken."""
    return InstanceAlreadyExists(
        f"expected no open instance with the id {row.instance_id!r}, found one ({InstanceStatus.RUNNING.label} or "
        f"{InstanceStatus.BLOCKED.label}); {advice}"
    )

"""Finding work and taking it: candidates by plain reads, then a lock by primary key inside a fenced transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper

from django_workflows.engine.events import InstanceStarted, ResultEvent, encode_event
from django_workflows.engine.steps import InstanceInfo
from django_workflows.exceptions import InstanceNotFound
from django_workflows.models import ActivityTask, HistoryEvent, InboxEvent, OpenInstance, Timer, WorkflowInstance

from .database import Database
from .deadlines import read_options
from .dialects.base import Row
from .work import Address, ClaimedTask, InboxRow, LoadedInstance, OpenChain, StoredEvent, StoredExecution, TaskKey

POLL_LIMIT = 500
INBOX_LIMIT = 500  # rows of one chain at a time: more would be read in vain by one that continues as new
_MOST_CRASHES, _MOST_ATTEMPTS = 2**15 - 1, 2**31 - 1  # that their columns count
_INBOX = InboxEvent._meta.db_table
_OPEN = OpenInstance._meta.db_table
_TIMER = Timer._meta.db_table
_INSTANCE = WorkflowInstance._meta.db_table
_TASK = ActivityTask._meta.db_table
_HISTORY = HistoryEvent._meta.db_table
_INBOX_COLUMNS = "i.id, i.chain_id, i.instance_id, i.type, i.data, o.open_key, o.owner_id, o.blocks"
_SELECT_INBOX = f"SELECT {_INBOX_COLUMNS} FROM {_INBOX} i LEFT JOIN {_OPEN} o ON o.chain_id = i.chain_id"
_EXECUTION_COLUMNS = (
    "w.instance_id, w.execution_id, w.name, w.version, w.queue, w.attempt, w.options, w.created_at, w.root_id, "
    "w.input, w.parent_command, p.id, p.chain_id, p.queue, p.instance_id"
)
_WITH_PARENT = f"LEFT JOIN {_INSTANCE} p ON p.id = w.parent_id"
_TASK_COLUMNS = (
    "instance_id", "command", "chain_id", "name", "queue", "workflow_queue", "attempt", "crashes", "scheduled_at",
    "available_at", "heartbeat", "options", "input",
)  # fmt: skip


def _places(values: Collection[Any]) -> str:
    return ", ".join(["%s"] * len(values))


# Candidates: plain reads, no locks


def may_find(
    database: Database, queues: Sequence[str], after: int, now: datetime, *, workflows: bool, activities: bool
) -> bool:
    """Tell in one statement whether the polls below may find anything; they alone know for whom it is."""
    questions: list[tuple[str, list[Any]]] = []
    time, among = database.dialect.to_time(now), f"queue IN ({_places(queues)})"
    if workflows:
        questions.append((f"{_INBOX} WHERE {among} AND id > %s ORDER BY id", [*queues, after]))
        questions.append((f"{_TIMER} WHERE wake_at <= %s ORDER BY wake_at", [time]))
    if activities:
        questions.append((f"{_TASK} WHERE {among} AND available_at <= %s ORDER BY available_at", [*queues, time]))
    # Not EXISTS, which PostgreSQL may answer by a scan where it remembers a full table.
    asked = " OR ".join(f"(SELECT 1 FROM {question} LIMIT 1) IS NOT NULL" for question, _ in questions)
    with database.cursor() as cursor:
        cursor.execute(f"SELECT {asked}", [value for _, values in questions for value in values])
        return bool(cursor.fetchone()[0])


def poll_inbox(database: Database, queues: Sequence[str], after: int) -> list[InboxRow]:
    """Return unparked inbox rows of some queues past an id, oldest first, at most POLL_LIMIT."""
    with database.cursor() as cursor:
        cursor.execute(
            f"{_SELECT_INBOX} WHERE i.queue IN ({_places(queues)}) AND i.id > %s ORDER BY i.id LIMIT {POLL_LIMIT}",
            [*queues, after],
        )
        return [InboxRow(*row) for row in cursor.fetchall()]


def poll_timers(
    database: Database, worker_id: int, queues: Sequence[str], now: datetime
) -> list[tuple[str, int, bool]]:
    """Return (open key, chain, owned by this worker) of instances with a due timer that no other worker owns."""
    with database.cursor() as cursor:
        # CROSS JOIN fixes the order on SQLite, which would start from the open rows; elsewhere it is an inner join.
        cursor.execute(
            f"SELECT o.open_key, o.chain_id, o.owner_id FROM {_TIMER} t CROSS JOIN {_OPEN} o "
            f"WHERE o.instance_id = t.instance_id AND t.wake_at <= %s "
            f"AND (o.owner_id IS NULL OR o.owner_id = {worker_id:d}) AND o.queue IN ({_places(queues)}) "
            f"ORDER BY t.wake_at LIMIT {POLL_LIMIT}",
            [database.dialect.to_time(now), *queues],
        )
        return [(key, chain, owner is not None) for key, chain, owner in cursor.fetchall()]


def poll_tasks(
    database: Database, queues: Sequence[str], names: Sequence[str], now: datetime, limit: int
) -> list[TaskKey]:
    """Return the keys of activity tasks that are ready and known by name, earliest first."""
    if not names:
        return []
    with database.cursor() as cursor:
        cursor.execute(
            f"SELECT instance_id, command FROM {_TASK} WHERE queue IN ({_places(queues)}) AND available_at <= %s "
            f"AND name IN ({_places(names)}) ORDER BY available_at LIMIT {int(limit)}",
            [*queues, database.dialect.to_time(now), *names],
        )
        return [TaskKey(*row) for row in cursor.fetchall()]


# Taking: inside the turn's transaction, behind the fence


def claim_instances(database: Database, cursor: CursorWrapper, worker_id: int, keys: list[str]) -> list[str]:
    """Take ownership of those instances that nobody owns or holds locked; return their keys.

    Counts a crash in advance: the first committed step takes it back.
    """
    if not keys:
        return []
    rows = database.dialect.select(
        cursor, OpenInstance, ("open_key", "crashes"), ("open_key",), keys, where="AND t.owner_id IS NULL", lock="skip"
    )
    if rows:
        changes = [(key, worker_id, min(crashes + 1, _MOST_CRASHES)) for key, crashes in rows]
        database.dialect.update(cursor, OpenInstance, ("open_key",), ("owner_id", "crashes"), changes)
    return [key for key, _ in rows]


def claim_tasks(database: Database, cursor: CursorWrapper, worker_id: int, keys: list[TaskKey]) -> list[ClaimedTask]:
    """Lease those activity tasks that are still ready; one attempt each.

    One that was found free may have been run by another worker since, and put back for later. One whose execution has
    closed is deleted: a termination leaves it behind.
    """
    if not keys:
        return []
    key = ("instance_id", "command")
    is_ready = f"AND t.available_at <= {database.dialect.now_sql}"
    rows = database.dialect.select(cursor, ActivityTask, _TASK_COLUMNS, key, keys, where=is_ready, lock="skip")
    tasks = _tasks(database, cursor, rows, claims=1)
    if len(tasks) < len(rows):
        wanted = {task.key for task in tasks}
        database.dialect.delete(
            cursor, ActivityTask, key, [tuple(row[:2]) for row in rows if tuple(row[:2]) not in wanted]
        )
    if tasks:
        columns = ("owner_id", "attempt", "crashes", "available_at", "expires_at")
        changes: list[Row] = [(*task.key, worker_id, task.attempt, task.crashes, None, None) for task in tasks]
        database.dialect.update(cursor, ActivityTask, key, columns, changes)
    return tasks


def find_claimed(
    database: Database, cursor: CursorWrapper, worker_id: int, instances: list[str], tasks: list[TaskKey]
) -> tuple[list[str], list[ClaimedTask]]:
    """Return which of these, free when they were last seen, belong to this worker now."""
    key, mine = ("instance_id", "command"), f"AND t.owner_id = {worker_id:d}"
    select = database.dialect.select
    opened = select(cursor, OpenInstance, ("open_key",), ("open_key",), instances, where=mine) if instances else []
    rows = select(cursor, ActivityTask, _TASK_COLUMNS, key, tasks, where=mine) if tasks else []
    return [row[0] for row in opened], _tasks(database, cursor, rows, claims=0)


def _tasks(database: Database, cursor: CursorWrapper, rows: list[Row], *, claims: int) -> list[ClaimedTask]:
    """Return the rows of open executions as tasks, with so many claims more than their columns count."""
    ids = _open_instance_ids(database, cursor, {row[0] for row in rows})
    return [_task(database, row, claims, *ids[row[0]]) for row in rows if row[0] in ids]


def _open_instance_ids(database: Database, cursor: CursorWrapper, keys: set[int]) -> dict[int, tuple[str, str, str]]:
    if not keys:
        return {}
    columns = ("id", "instance_id", "execution_id", "name")
    is_open = "AND t.closed_at IS NULL"
    rows = database.dialect.select(cursor, WorkflowInstance, columns, ("id",), list(keys), where=is_open)
    return {pk: (instance_id, execution_id, name) for pk, instance_id, execution_id, name in rows}


def _task(database: Database, row: Row, claims: int, instance_id: str, execution_id: str, workflow: str) -> ClaimedTask:
    (instance, command, chain, name, queue, workflow_queue, attempt, crashes, scheduled, available, heartbeat, options,
     input) = row  # fmt: skip
    from_time = database.dialect.from_time
    scheduled_at = from_time(scheduled)
    assert scheduled_at is not None
    stored_options, unreadable = read_options(options)
    return ClaimedTask(
        key=TaskKey(instance, command), chain=chain, name=name, queue=queue, workflow_queue=workflow_queue,
        attempt=min(attempt + claims, _MOST_ATTEMPTS), crashes=min(crashes + claims, _MOST_CRASHES),
        scheduled_at=scheduled_at, waiting_since=from_time(available), options=stored_options, input=input.encode(),
        heartbeat=heartbeat, instance_id=instance_id, execution_id=execution_id, workflow=workflow,
        unreadable=unreadable,
    )  # fmt: skip


def result_row(task: ClaimedTask, event: ResultEvent, now: Any) -> Row:
    """Return the inbox row of a task's outcome, for `(chain_id, instance_id, type, data, queue, created_at)`."""
    return (task.chain, task.key.instance, event.type, encode_event(event), task.workflow_queue, now)


# Loading what was claimed


def load_instances(database: Database, keys: Sequence[str]) -> list[LoadedInstance]:
    """Read claimed instances with their input, history and inbox, without those that are closed meanwhile."""
    if not keys:
        return []
    with database.cursor() as cursor:
        cursor.execute(
            f"SELECT o.open_key, o.chain_id, o.instance_id, o.queue, o.history_length, o.crashes, o.blocks, "
            f"{_EXECUTION_COLUMNS} FROM {_OPEN} o JOIN {_INSTANCE} w ON w.id = o.instance_id {_WITH_PARENT} "
            f"WHERE o.open_key IN ({_places(keys)})",
            list(keys),
        )
        rows = cursor.fetchall()
        if not rows:
            return []  # they have been terminated since, or have no execution
        history = _load_history(database, cursor, [row[2] for row in rows if row[4]])
        rows = _without_removed(database, cursor, rows, history)
        inbox = _load_inbox(cursor, [row[1] for row in rows])
        for _, chain, _, _, length, *_ in rows:
            if not length and len(inbox[chain]) >= INBOX_LIMIT:
                inbox[chain] += _load_start(cursor, chain)
    return [_loaded(database, row, history[row[2]], inbox[row[1]]) for row in rows]


def _without_removed(
    database: Database, cursor: CursorWrapper, rows: list[Row], history: dict[int, list[StoredEvent]]
) -> list[Row]:
    """Leave out what was closed and removed behind the read of the open rows; a row that is as it was is damaged."""
    short = {row[0] for row in rows if len(history[row[2]]) < row[4]}
    if not short:
        return rows
    columns = ("open_key", "instance_id", "history_length")
    open_still = {
        tuple(row) for row in database.dialect.select(cursor, OpenInstance, columns, columns[:1], list(short))
    }
    return [row for row in rows if row[0] not in short or (row[0], row[2], row[4]) in open_still]


def load_inboxes(database: Database, chains: Collection[int]) -> list[InboxRow]:
    """Return what waits for some chains, of each the first INBOX_LIMIT rows in the order of ids."""
    with database.cursor() as cursor:
        return [row for rows in _load_inbox(cursor, chains).values() for row in rows]


def load_execution(database: Database, instance: int) -> StoredExecution:
    """Read one execution, open or closed, with its input and history; raises InstanceNotFound where it was removed."""
    with database.cursor() as cursor:
        # The history first: where the row is there after it, it was whole.
        history = _load_history(database, cursor, [instance])
        cursor.execute(f"SELECT {_EXECUTION_COLUMNS} FROM {_INSTANCE} w {_WITH_PARENT} WHERE w.id = %s", [instance])
        row = cursor.fetchone()
    if row is None:
        raise InstanceNotFound(f"expected the execution with the key {instance}, found that it was removed meanwhile")
    execution, _, _ = _execution(database, row, history[instance])
    return execution


def _loaded(database: Database, row: Row, history: list[StoredEvent], inbox: list[InboxRow]) -> LoadedInstance:
    key, chain, instance, queue, length, crashes, blocks, *rest = row
    execution, root, parent = _execution(database, rest, history)
    opened = OpenChain(
        open_key=key, chain=chain, instance=instance, queue=queue, history_length=length, info=execution.info,
        parent=parent, root=root, crashes=crashes, blocks=blocks,
    )  # fmt: skip
    return LoadedInstance(opened, execution, inbox)


def _execution(
    database: Database, row: Row, history: list[StoredEvent]
) -> tuple[StoredExecution, int | None, Address | None]:
    """Return an execution, the key of its root, and where its outcome goes."""
    (instance_id, execution_id, name, version, queue, attempt, options, created, root, input, parent_command, parent,
     parent_chain, parent_queue, parent_instance_id) = row  # fmt: skip
    started_at = database.dialect.from_time(created)
    assert started_at is not None
    info = InstanceInfo(
        instance_id=instance_id, execution_id=execution_id, workflow=name, queue=queue, version=version,
        started_at=started_at, parent_instance_id=parent_instance_id, attempt=attempt,
    )  # fmt: skip
    address = Address(parent_chain or parent, parent, parent_queue, parent_command) if parent is not None else None
    return StoredExecution(info, options, input, history), root, address


def _load_history(database: Database, cursor: CursorWrapper, instances: list[int]) -> dict[int, list[StoredEvent]]:
    found: dict[int, list[StoredEvent]] = defaultdict(list)
    if instances:
        cursor.execute(
            f"SELECT instance_id, sequence, time, type, data FROM {_HISTORY} "
            f"WHERE instance_id IN ({_places(instances)}) ORDER BY instance_id, sequence",
            instances,
        )
        for instance, sequence, time, type_name, data in cursor.fetchall():
            moment = database.dialect.from_time(time)
            assert moment is not None
            found[instance].append(StoredEvent(sequence, moment, type_name, data))
    return found


def _load_inbox(cursor: CursorWrapper, chains: Collection[int]) -> dict[int, list[InboxRow]]:
    """Read the first INBOX_LIMIT rows of each chain, as many chains at a time as that many rows hold."""
    found: dict[int, list[InboxRow]] = defaultdict(list)
    left = sorted(set(chains))
    while left:
        cursor.execute(
            f"{_SELECT_INBOX} WHERE i.chain_id IN ({_places(left)}) ORDER BY i.chain_id, i.id LIMIT {INBOX_LIMIT}", left
        )
        rows = [InboxRow(*row) for row in cursor.fetchall()]
        for row in rows:
            found[row.chain].append(row)
        if len(rows) < INBOX_LIMIT:
            break
        last = rows[-1].chain
        if last == rows[0].chain:
            left = [chain for chain in left if chain > last]
        else:
            del found[last]  # it may be cut, and has a page of its own
            left = [chain for chain in left if chain >= last]
    return found


def _load_start(cursor: CursorWrapper, chain: int) -> list[InboxRow]:
    """Return the start of the current execution, which is younger than what the one before has not read."""
    cursor.execute(
        f"{_SELECT_INBOX} WHERE i.chain_id = %s AND i.type = %s AND i.instance_id = o.instance_id "
        "ORDER BY i.id DESC LIMIT 1",
        [chain, InstanceStarted.__name__],
    )
    return [InboxRow(*row) for row in cursor.fetchall()]

"""A turn waits for the server where it needs an answer: the other statements travel with those."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import Error, connection, transaction
from django.db.backends.utils import CursorWrapper

from django_workflows.engine import events as ev
from django_workflows.engine.steps import Step
from django_workflows.models import ActivityTask, HistoryEvent, OpenInstance
from django_workflows.store.database import Database
from django_workflows.store.dialects import base, postponed
from django_workflows.store.turns import commit_turn
from django_workflows.store.work import InstanceStep, TurnBatch
from django_workflows.store.workers import WorkerFenced, retire
from tests.testapp.models import Effect

from .store_support import activity_scheduled, claim, commit, first_step, register, start

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="its driver takes one statement at a time"),
]

KEY = connection.ops.quote_name("key")


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """Collect what the driver gets."""
    seen: list[tuple[str, Any]] = []
    execute = CursorWrapper._execute  # type: ignore[attr-defined]

    def collect(cursor: CursorWrapper, sql: str, params: Any, *context: Any) -> Any:
        seen.append((sql, params))
        return execute(cursor, sql, params, *context)

    monkeypatch.setattr(CursorWrapper, "_execute", collect)
    yield seen


def insert_later(cursor: CursorWrapper, key: str) -> None:
    Database().dialect.later(cursor, f"INSERT INTO testapp_effect ({KEY}, value) VALUES (%s, 0)", [key])


def keys() -> list[str]:
    return sorted(Effect.objects.values_list("key", flat=True))


def is_usable() -> bool:
    return connection.get_autocommit() and not connection.in_atomic_block and ContentType.objects.count() >= 0


# What travels with what


def test_a_turn_of_steps_waits_twice_for_statements(texts: list[tuple[str, Any]]) -> None:
    me = register()
    [loaded] = claim(me, *start())
    commit(me, TurnBatch(steps=[first_step(loaded)]))
    loaded.chain.history_length += 1
    step = InstanceStep(loaded.chain, Step(time=datetime.now(UTC), events=[activity_scheduled()]), eager={1})
    texts.clear()

    commit_turn(Database(), me, TurnBatch(steps=[step]))

    assert len(texts) == 2, [sql for sql, _ in texts]
    assert ActivityTask.objects.count() == 1


def test_statements_of_others_come_after_what_waits() -> None:
    with Database().dialect.turn() as cursor:
        insert_later(cursor, "a")
        assert keys() == ["a"], "the ORM uses a cursor of its own"
        insert_later(cursor, "b")
    assert keys() == ["a", "b"]


def test_many_statements_of_others_come_after_what_waits() -> None:
    with Database().dialect.turn() as cursor, connection.cursor() as other:
        insert_later(cursor, "a")
        other.executemany(f"UPDATE testapp_effect SET {KEY} = %s", [["b"], ["c"]])
    assert keys() == ["c"]


def test_statement_without_parameters_keeps_its_percent_signs() -> None:
    with Database().dialect.turn() as cursor:
        insert_later(cursor, "50 %")
        cursor.execute("SELECT '100 %'")
        assert cursor.fetchone() == ("100 %",)
        cursor.execute("SELECT count(*) FROM testapp_effect")
        assert cursor.fetchone() == (1,)
    assert keys() == ["50 %"]


def test_texts_stay_below_a_size(monkeypatch: pytest.MonkeyPatch, texts: list[tuple[str, Any]]) -> None:
    """PostgreSQL takes 1 GB at a time, MySQL its max_allowed_packet; what is larger would be tried for ever."""
    monkeypatch.setattr(base, "LARGEST", 3000)
    monkeypatch.setattr(postponed, "LARGEST", 3000)
    if connection.vendor == "mysql":
        from django_workflows.store.dialects import mysql

        monkeypatch.setattr(mysql, "LARGEST", 3000)
    me = register()
    steps = [first_step(loaded, _signal(800), _signal(800)) for loaded in claim(me, *start(6))]
    texts.clear()

    result = commit(me, TurnBatch(steps=steps))

    assert result.committed == steps
    assert HistoryEvent.objects.count() == 6 * 3
    sizes = [sum(len(value) for value in params or () if isinstance(value, str)) for _, params in texts]
    assert max(sizes) < 4500 < sum(sizes), sizes


def test_what_stays_below_the_size_goes_in_one_text(
    monkeypatch: pytest.MonkeyPatch, texts: list[tuple[str, Any]]
) -> None:
    monkeypatch.setattr(postponed, "LARGEST", 400)
    with Database().dialect.turn() as cursor:
        insert_later(cursor, "a" * 100)
        insert_later(cursor, "b" * 250)
    assert [sql.count("INSERT") for sql, _ in texts if "INSERT" in sql] == [2]


def _signal(size: int) -> ev.Event:
    return ev.SignalReceived("note", msgspec.Raw(b'"%s"' % (b"x" * size)))


# What goes wrong


def test_an_error_of_what_waited_ends_the_transaction_and_no_more() -> None:
    with pytest.raises(Error), Database().dialect.turn() as cursor:
        insert_later(cursor, "a")
        Database().dialect.later(cursor, "INSERT INTO no_such_table VALUES (%s)", [1])
    assert is_usable()
    assert keys() == []


def test_an_error_beside_what_waits_leaves_nothing_of_it() -> None:
    with pytest.raises(RuntimeError), Database().dialect.turn() as cursor:
        insert_later(cursor, "a")
        raise RuntimeError
    assert is_usable()
    assert keys() == []
    insert_later(connection.cursor(), "b")
    assert keys() == ["b"]


def test_fence_holds_though_its_answer_comes_with_another() -> None:
    me = register()
    [loaded] = claim(me, *start())
    retire(Database(), me)
    with pytest.raises(WorkerFenced):
        commit(me, TurnBatch(steps=[first_step(loaded)]))
    assert is_usable()
    assert not HistoryEvent.objects.exists()
    assert OpenInstance.objects.get().owner_id == me


def test_a_turn_inside_a_transaction_ends_with_it() -> None:
    with transaction.atomic():
        with Database().dialect.turn() as cursor:
            insert_later(cursor, "a")
        assert keys() == ["a"]
        transaction.set_rollback(True)
    assert keys() == []


def test_a_session_that_takes_one_statement_at_a_time_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor == "postgresql":
        pytest.skip("test_connections has PostgreSQL's")
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "multi_statements", False)
    connection.close()
    try:
        me = register()
        [loaded] = claim(me, *start())
        commit(me, TurnBatch(steps=[first_step(loaded, activity_scheduled())]))
    finally:
        monkeypatch.undo()
        connection.close()
    assert ActivityTask.objects.count() == 1

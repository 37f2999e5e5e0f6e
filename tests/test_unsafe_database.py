"""A worker refuses a database that is configured in a way that would make it fail later."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from django_workflows.store.dialects import dialect_of
from django_workflows.worker.worker import Worker, WorkerOptions

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite's transaction_mode")


def test_a_worker_refuses_deferred_transactions_on_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "transaction_mode", None)
    with pytest.raises(ImproperlyConfigured, match='"IMMEDIATE" for SQLite, found DEFERRED'):
        Worker(WorkerOptions()).run()


def test_immediate_transactions_are_fine() -> None:
    dialect_of(connection).refuse_unsafe()

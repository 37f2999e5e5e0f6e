"""What every test of a command shares: committed rows, a worker, and a look at the tables when the test is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_workflows import registry
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.conformance.waiting import assert_tables_consistent


@pytest.fixture
def consistent_tables(transactional_db: None) -> Iterator[None]:
    """Look at the tables after the test, once its worker has stopped."""
    yield
    assert_tables_consistent()


@pytest.fixture
def worker(consistent_tables: None) -> Iterator[Worker]:
    with running_worker() as running:
        yield running


@pytest.fixture
def only_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the workflows of other tests that were imported into this process."""
    definitions = {
        name: found for name, found in registry.workflows._definitions.items() if name.startswith("commands.")
    }
    monkeypatch.setattr(registry.workflows, "_definitions", definitions)

"""What every conformance test shares: a worker hot and cold, and a look at the tables when the test is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker

from .waiting import assert_tables_consistent


@pytest.fixture(autouse=True)
def consistent_tables(transactional_db: None) -> Iterator[None]:
    """Look at the tables after each test, once its workers have stopped."""
    yield
    assert_tables_consistent()


@pytest.fixture(params=[1000, 0], ids=["sticky", "cold"])
def cache_size(request: pytest.FixtureRequest) -> int:
    """The sticky cache of the test's worker: 0 makes every step a replay from the history."""
    size: int = request.param
    return size


@pytest.fixture
def worker(consistent_tables: None, cache_size: int) -> Iterator[Worker]:
    with running_worker(sticky_cache_size=cache_size) as running:
        yield running

"""Instances and the client, one test per promise."""

from __future__ import annotations

from django_workflows.worker.worker import Worker
from tests.testapp.workflows import greet


def test_result_arrives_after_a_worker_ran_it(worker: Worker) -> None:
    assert greet.start("hello").result(timeout=10) == "hello world"

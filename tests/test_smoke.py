import pytest
from django_workflows.testing import running_worker
from tests.testapp.workflows import greet, greet_async
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("cache", [1000, 0])
def test_hello(cache):
    with running_worker(sticky_cache_size=cache):
        h = greet.start("hello")
        assert h.result(timeout=10) == "hello world"
        assert greet_async.start("hello").result(timeout=10) == "hello world"
        print([tuple(e) for e in h.history()])

"""Which exceptions a future can carry into a coroutine, and what goes in the place of the others."""

from __future__ import annotations

from django_workflows.exceptions import ActivityError
from django_workflows.failures import Failure


def raisable(failure: Failure) -> Exception:
    """Return the exception of a failure in a form that a future takes and that no cancellation is mistaken for."""
    error = acceptable(failure.rebuild())
    if isinstance(error, Exception):
        return error
    return ActivityError(failure.type, failure.message, failure.format())


def acceptable(error: BaseException) -> BaseException:
    """Return the exception, or one in its place that can be thrown into a coroutine and caught there."""
    if isinstance(error, StopIteration | GeneratorExit):
        replacement = RuntimeError(f"{type(error).__name__}: {error}")
        replacement.__cause__ = error
        return replacement
    return error

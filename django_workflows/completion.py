"""Activities that somebody else completes: their tokens, and what happens when one comes back."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.core import signing

from . import registry, wakeups
from .conf import get_settings
from .engine.events import ActivityCompleted, ActivityFailed
from .exceptions import InvalidActivityToken, RegistrationError
from .failures import Failure
from .payloads import Raw
from .store import deferred
from .store.database import Database
from .store.work import ClaimedTask, TaskKey

_SALT = "django_workflows.activity"


class _Attempt(NamedTuple):
    key: TaskKey
    attempt: int


def make_token(task: ClaimedTask) -> str:
    """Return the signed name of an attempt; safe in a URL."""
    return signing.dumps([*task.key, task.attempt], salt=_SALT)


def complete(token: str, value: Any) -> None:
    """Send the result of a deferred activity in the caller's transaction; see `activity.complete`."""
    database, attempt = Database(), _read(token)
    task = deferred.find_task(database, *attempt)
    definition = registry.activities.get(task.name)
    if definition is None:
        raise RegistrationError(
            f"no activity is registered as {task.name!r} in this process, so its result cannot be encoded; is its app "
            "missing from INSTALLED_APPS here?"
        )
    payload = definition.signature.encode_result(value, get_settings().max_payload_bytes)
    definition.signature.decode_result(payload)  # the caller's mistake must not surface in the workflow
    deferred.send(database, task, ActivityCompleted(task.command, Raw(payload), deferred=True))
    wakeups.announce_on_commit(database.alias)


def fail(token: str, error: BaseException) -> None:
    """Send the failure of a deferred activity in the caller's transaction; see `activity.fail`."""
    database, attempt = Database(), _read(token)
    task = deferred.find_task(database, *attempt)
    event = ActivityFailed(command=task.command, failure=Failure.of(error), deferred=True)
    deferred.send(database, task, event)
    wakeups.announce_on_commit(database.alias)


def _read(token: str) -> _Attempt:
    try:
        instance, command, attempt = signing.loads(token, salt=_SALT)
    except Exception as error:
        raise InvalidActivityToken(
            f"expected a token from activity.defer(), found {token!r:.100}: it was changed or made elsewhere, or "
            "SECRET_KEY has changed since"
        ) from error
    return _Attempt(TaskKey(instance, command), attempt)

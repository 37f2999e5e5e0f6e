"""The settings: one dict, `DJANGO_WORKFLOWS`, whose keys are the upper-case names of the fields below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from math import isnan
from typing import Annotated, Any, NamedTuple, get_type_hints

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .codec import Codec

SETTING = "DJANGO_WORKFLOWS"


def _error(path: str, expected: str, found: object) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{path} must be {expected}, found {found!r} ({type(found).__name__}).")


def _text(path: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _error(path, "a non-empty string", value)
    return value


def _alias(path: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise _error(path, "None or an alias", value)
    return value


def _number(path: str, value: object) -> float:
    # bool is an int to Python, but never what somebody meant here.
    if isinstance(value, bool) or not isinstance(value, int | float) or isnan(value) or value <= 0:
        raise _error(path, "a number of seconds above 0", value)
    return float(value)


def _integer(minimum: int) -> Callable[[str, object], int]:
    def read(path: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise _error(path, f"an integer of at least {minimum}", value)
        return value

    return read


def _duration(path: str, value: object, zero: bool = False) -> timedelta:
    expected = f"a timedelta or a number of seconds, {'at least' if zero else 'above'} 0"
    duration = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            duration = timedelta(seconds=value)
        except (OverflowError, ValueError):
            raise _error(path, expected, value) from None
    if not isinstance(duration, timedelta) or duration < timedelta(0) or (not duration and not zero):
        raise _error(path, expected, value)
    return duration


def _grace(path: str, value: object) -> timedelta:
    return _duration(path, value, zero=True)


def _retention(path: str, value: object) -> Mapping[str, timedelta] | None:
    # Imported late: models cannot be loaded before the app registry is, settings can.
    from django_workflows.models import InstanceStatus

    if value is None:
        return None
    closed = [status.value for status in InstanceStatus if status.is_closed]
    if not isinstance(value, Mapping):
        raise _error(path, "None or a dict of closed status to timedelta", value)
    for status in value:
        if status not in closed:
            raise _error(f"{path}[{status!r}]", f"keyed by a closed status, one of {', '.join(closed)}", status)
    return {str(status): _grace(f'{path}["{status}"]', age) for status, age in value.items()}


def _paths(path: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) and "." in entry for entry in value):
        raise _error(path, "a list of dotted paths", value)
    return tuple(value)


def _codec(path: str, value: object) -> Codec | None:
    if value is None:
        return None
    try:
        codec: Codec = import_string(_text(path, value))()
    except Exception as error:
        raise ImproperlyConfigured(f"{path}, {value!r}, cannot be imported and called: {error}") from error
    if not (callable(getattr(codec, "encode", None)) and callable(getattr(codec, "decode", None))):
        raise _error(path, "the dotted path of a class with the methods encode and decode", value)
    return codec


Text = Annotated[str, _text]
Paths = Annotated[tuple[str, ...], _paths]
Alias = Annotated[str | None, _alias]
Seconds = Annotated[float, _number]
Count = Annotated[int, _integer(1)]
Duration = Annotated[timedelta, _duration]
Grace = Annotated[timedelta, _grace]
Retention = Annotated[Mapping[str, timedelta] | None, _retention]
CodecPath = Annotated[Codec | None, _codec]


@dataclass(frozen=True, kw_only=True)
class WorkflowSettings:
    """The checked value of `DJANGO_WORKFLOWS`; `LEASE` is `get_settings().lease`, and so on."""

    # The alias in DATABASES that holds the tables of workflows.
    database: Text = "default"
    # The queue of workflows and activities that name none.
    default_queue: Text = "default"
    # How long a silent worker keeps what it claimed; after that others take over.
    lease: Duration = timedelta(seconds=30)
    # Seconds between two looks for new work: the first when busy a moment ago, the second when idle for long.
    poll_interval_min: Seconds = 0.01
    poll_interval_max: Seconds = 0.25
    # The alias in CACHES of the django-redis cache that carries wake-ups; None: the database does where it can.
    wakeups_cache: Alias = None
    # The alias in DATABASES on which workers listen on PostgreSQL, by default `database`; None: no NOTIFY, no LISTEN.
    listen_database: Alias = "default"
    # How many instances a worker keeps in memory between steps; 0 replays every step from its history.
    sticky_cache_size: Annotated[int, _integer(0)] = 1000
    # The largest encoded input, result, signal value or failure. MySQL's max_allowed_packet must be above it.
    max_payload_bytes: Count = 2 * 1024 * 1024
    # Seconds that one step of a workflow may compute before it counts as deadlocked.
    step_time_limit: Seconds = 2.0
    # Sync and async activities that one worker process runs at a time.
    threads: Count = 8
    async_activities: Count = 100
    # How long a worker that was asked to stop waits for its running activities.
    shutdown_grace: Grace = timedelta(seconds=30)
    # Closed status to the age at which instances are removed; None keeps everything.
    retention: Retention = None
    # Length of a history from which continue-as-new is suggested and logged, and at which the execution fails.
    history_warning: Count = 10_000
    history_limit: Count = 50_000
    # What carries context from whoever starts an instance to its activities and children: dotted paths of ContextVars
    # and of classes with `name`, `capture()` and `restore()`.
    propagators: Paths = (
        "django_workflows.propagators.LanguagePropagator",
        "django_workflows.propagators.TimeZonePropagator",
    )
    # What turns values into JSON and back, configured as the dotted path of its class; None is this package's own.
    codec: CodecPath = None
    # Claims of one item that killed their worker before the item is set aside.
    crash_limit: Count = 5


class Problem(NamedTuple):
    """What is wrong with one setting, and what to do about it."""

    message: str
    hint: str | None = None


class Reading(NamedTuple):
    """The settings as far as they could be read; a default stands for what is wrong."""

    settings: WorkflowSettings
    problems: tuple[Problem, ...]


def _read(configured: object) -> Reading:
    if not isinstance(configured, Mapping):
        return Reading(WorkflowSettings(), (Problem(str(_error(SETTING, "a dict", configured))),))
    hints = get_type_hints(WorkflowSettings, include_extras=True)
    readers = {name.upper(): hint.__metadata__[0] for name, hint in hints.items()}
    values: dict[str, Any] = {}
    problems = []
    for key, value in configured.items():
        path = f'{SETTING}["{key}"]'
        if key not in readers:
            problems.append(_unknown(path, str(key), value, readers))
            continue
        try:
            values[key.lower()] = readers[key](path, value)
        except ImproperlyConfigured as error:
            problems.append(Problem(str(error)))
    if "database" in values:
        values.setdefault("listen_database", values["database"])
    result = WorkflowSettings(**values)
    if not problems:
        for low, high in (("poll_interval_min", "poll_interval_max"), ("history_warning", "history_limit")):
            if getattr(result, low) > getattr(result, high):
                limit = f'at most {SETTING}["{high.upper()}"] ({getattr(result, high)!r})'
                problems.append(Problem(str(_error(f'{SETTING}["{low.upper()}"]', limit, getattr(result, low)))))
    return Reading(result, tuple(problems))


def _unknown(path: str, key: str, value: object, known: Iterable[str]) -> Problem:
    close = get_close_matches(key.upper(), known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Expected one of {', '.join(known)}."
    return Problem(f"{path} is not a setting, found {value!r}.", hint)


@cache
def read_settings() -> Reading:
    """Read `DJANGO_WORKFLOWS` once; `override_settings` makes the next call read it again."""
    return _read(getattr(settings, SETTING, {}))


def get_settings() -> WorkflowSettings:
    """Return the settings; raises ImproperlyConfigured, naming everything that is wrong with them."""
    result, problems = read_settings()
    if problems:
        raise ImproperlyConfigured("\n".join(f"{message} {hint or ''}".rstrip() for message, hint in problems))
    return result


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == SETTING:
        read_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_workflows.conf")

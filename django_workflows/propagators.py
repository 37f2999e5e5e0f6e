"""The propagators for what Django itself keeps in the context: the language and the time zone.

https://docs.djangoproject.com/en/stable/topics/i18n/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone, translation
from django.utils.module_loading import import_string

from .authoring.propagation import ContextVarPropagator, Propagator
from .conf import SETTING


class LanguagePropagator:
    """Carries the active language where it is another than the project's LANGUAGE_CODE."""

    name = "language"

    def capture(self) -> str | None:
        language = translation.get_language()
        return None if language == settings.LANGUAGE_CODE else language

    def restore(self, value: str) -> None:
        translation.activate(value)


class TimeZonePropagator:
    """Carries the current time zone where it is another than the project's TIME_ZONE."""

    name = "time_zone"

    def capture(self) -> str | None:
        name = timezone.get_current_timezone_name()
        return None if name == settings.TIME_ZONE else name

    def restore(self, value: str) -> None:
        timezone.activate(value)


def load(paths: Iterable[str]) -> Iterator[Propagator]:
    """Yield the propagators that the PROPAGATORS setting names; raises ImproperlyConfigured."""
    for path in paths:
        where = f'{SETTING}["PROPAGATORS"]: {path!r}'
        try:
            found: Any = import_string(path)
        except ImportError as error:
            raise ImproperlyConfigured(f"{where} cannot be imported: {error}") from error
        if isinstance(found, ContextVar):
            found = ContextVarPropagator(found)
        elif isinstance(found, type):
            found = found()
        if not all(hasattr(found, attribute) for attribute in ("name", "capture", "restore")):
            raise ImproperlyConfigured(
                f"{where}: expected a ContextVar, or a class with a name, capture() and restore(), found {found!r}"
            )
        yield found

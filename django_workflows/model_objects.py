"""Django's model objects as values: stored as label and primary key, never as what their row holds.

Decoding one makes no query. It gives an object of which only the primary key is loaded: that is all workflow code may
see, since replay must not depend on the row. Where code may query, `fetched` decodes with the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, TypeVar

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import models, router
from django.db.models.base import ModelState
from django.utils.encoding import is_protected_type

from . import payloads
from .converters import register_type
from .exceptions import ObjectNotFound
from .payloads import CallSignature

__all__ = ["afetched", "fetched", "fetched_result", "register"]

T = TypeVar("T")


def register() -> None:
    """Make model objects known as values."""
    register_type(models.Model, encode=_encode, decode=_decode, subclasses=True)


def fetched(decode: Callable[[], T], where: str) -> T:
    """Call `decode` so that the model objects in its result are fetched, with one query for each model.

    Raises ObjectNotFound, in which `where` says what named the object.
    """
    fetch = _Fetch(where)
    value = fetch.run(decode)
    if not fetch.wanted:
        return value
    fetch.load()
    return fetch.run(decode)


async def afetched(decode: Callable[[], T], where: str) -> T:
    """Do the same off the event loop where there is a query to make, and on it where there is none."""
    fetch = _Fetch(where)
    value = fetch.run(decode)
    if not fetch.wanted:
        return value
    await sync_to_async(fetch.load)()
    return fetch.run(decode)


def fetched_result(signature: CallSignature | None, stored: str | bytes, where: str) -> Any:
    """Decode a result with its model objects fetched; of a function that nobody knows, as plain data."""
    if signature is None:
        return payloads.decode(stored, Any, what=where)
    return fetched(partial(signature.decode_result, stored), where)


class _Key(NamedTuple):
    model: type[models.Model]
    pk: Any


class _Fetch:
    """The rows that one decoding asks for: the first run collects the keys, the second one finds the rows."""

    def __init__(self, where: str) -> None:
        self.wanted: dict[_Key, Any] = {}  # to the primary key as it is stored
        self._where = where
        self._rows: dict[_Key, models.Model] = {}

    def run(self, decode: Callable[[], T]) -> T:
        token = _current.set(self)
        try:
            return decode()
        finally:
            _current.reset(token)

    def take(self, key: _Key, stored: Any) -> models.Model:
        if key in self._rows:
            return self._rows[key]
        self.wanted[key] = stored
        return _reference(key)

    def load(self) -> None:
        for model in {key.model: None for key in self.wanted}:
            # A replica that lags behind would lack what the sender of the object has just saved.
            manager = model._base_manager.using(router.db_for_write(model))
            found = manager.in_bulk([key.pk for key in self.wanted if key.model is model])
            self._rows.update({_Key(model, pk): row for pk, row in found.items()})
        for key, stored in self.wanted.items():
            if key not in self._rows:
                raise ObjectNotFound(key.model._meta.label_lower, stored, self._where)


_current: ContextVar[_Fetch | None] = ContextVar("django_workflows_fetch", default=None)


def _encode(value: models.Model) -> list[Any]:
    if value._state.adding or value.pk is None:
        raise ValueError("it has no row; save it first")
    meta = value._meta
    pk = value.pk if is_protected_type(value.pk) else meta.pk.value_to_string(value)
    return [meta.label_lower, pk]


def _decode(cls: type[models.Model], data: Any) -> models.Model:
    match data:
        case [str(label), int() | float() | str() as stored]:
            key = _find(cls, label, stored)
        case _:
            raise ValueError(f"expected [label, primary key], found {str(data)[:80]}")
    fetch = _current.get()
    return _reference(key) if fetch is None else fetch.take(key, stored)


def _find(cls: type[models.Model], label: str, stored: Any) -> _Key:
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        raise ValueError(f"expected the label of an installed model, found {label!r}; was it renamed?") from None
    if not issubclass(model, cls):
        raise ValueError(f"expected an object of {cls._meta.label_lower} or a subclass of it, found one of {label}")
    pk = model._meta.pk.to_python(stored)
    return _Key(model, tuple(pk) if isinstance(pk, list) else pk)


def _reference(key: _Key) -> models.Model:
    """Make an object of which only the primary key is loaded, as unpickling does: without running code of the model."""
    value = key.model.__new__(key.model)
    value._state = ModelState()
    value._state.adding = False
    fields = key.model._meta.pk_fields
    pks = key.pk if isinstance(key.pk, tuple) else (key.pk,)
    vars(value).update({field.attname: pk for field, pk in zip(fields, pks, strict=True)})
    return value

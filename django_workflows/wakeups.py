"""Wake-ups: hints that there is work. The tables are the truth, a poll finds everything without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_local: list[Callable[[], None]] = []


@contextmanager
def local(wake: Callable[[], None]) -> Iterator[None]:
    """Have `wake` called when work is announced in this process."""
    _local.append(wake)
    try:
        yield
    finally:
        _local.remove(wake)


def announce() -> None:
    """Tell the workers in this process to look for work."""
    for wake in list(_local):
        wake()

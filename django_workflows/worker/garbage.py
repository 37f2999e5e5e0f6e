"""Python's garbage collector in a process that holds thousands of machines."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLD = (50_000, 20, 20)


@contextmanager
def collected_rarely() -> Iterator[None]:
    """Have cyclic garbage looked for less often.

    By default that is every 700 new objects, fewer than one small turn makes, and each look goes over machines that
    are needed. It was a quarter of the processor time of short workflows.
    """
    before = gc.get_threshold()
    gc.freeze()  # what exists now, the code above all, lives as long as the process
    gc.set_threshold(*_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

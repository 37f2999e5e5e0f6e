"""A worker process whose wall clock is off: `python -m tests.conformance.skewed_worker SECONDS [arguments]`."""

from __future__ import annotations

import ctypes
import datetime
import gc
import os
import sys
import time
from typing import Any


def skew_clocks(seconds: float) -> None:
    """Shift what this process takes for the time of day; its monotonic clock is left alone."""
    real_time, real_now = time.time, datetime.datetime.now

    def now(cls: type[datetime.datetime], tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return real_now(tz) + datetime.timedelta(seconds=seconds)

    time.time = lambda: real_time() + seconds
    # The type is immutable from Python, and everybody has imported it already: change its own dict.
    methods: dict[str, Any] = gc.get_referents(datetime.datetime.__dict__)[0]
    methods["now"] = classmethod(now)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
    assert abs(datetime.datetime.now().timestamp() - real_time() - seconds) < 1


if __name__ == "__main__":
    skew_clocks(float(sys.argv[1]))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", "runworkflowworker", "--verbosity", "0", *sys.argv[2:]])

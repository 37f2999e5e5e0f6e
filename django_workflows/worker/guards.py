"""Guards around a step: a time limit, and refusal of what replay cannot repeat."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django_workflows.engine.context import current_machine
from django_workflows.exceptions import NotAllowedInWorkflowError, StepTimeLimitExceeded

_REFUSED = {
    "_thread.start_new_thread": "threads",
    "_thread.start_joinable_thread": "threads",
    "os.fork": "processes",
    "os.forkpty": "processes",
    "os.posix_spawn": "processes",
    "os.system": "processes",
    "socket.connect": "sockets",
    "socket.bind": "sockets",
    "socket.getaddrinfo": "sockets",
    "subprocess.Popen": "processes",
    "sqlite3.connect": "databases",
    "sqlite3.connect/handle": "databases",
}
_installed = threading.Lock()
_hook_added = False


def install_audit_hook() -> None:
    """Refuse threads, processes and sockets in workflow code for the rest of this process's life.

    CPython announces these through audit hooks, which cannot be removed; elsewhere than in a step this one looks and
    returns. https://docs.python.org/3/library/audit_events.html
    """
    global _hook_added
    with _installed:
        if not _hook_added:
            _hook_added = True
            sys.addaudithook(_audit)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    what = _REFUSED.get(event)
    if what is not None and current_machine() is not None:
        raise NotAllowedInWorkflowError(
            f"workflow code used {what} ({event}), which cannot be replayed; move the call into an activity"
        )


class StepWatch:
    """Ends steps that run longer than the limit, from a thread of its own.

    The error is raised in the stepping thread at its next bytecode; a call that blocks in C ends when it returns.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._started: float | None = None
        self._thread_id = 0
        self._label = ""
        self._stack = ""
        self._changed = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="workflow-step-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._changed.set()

    @contextmanager
    def watch(self, label: str) -> Iterator[None]:
        """Bound the block; raises StepTimeLimitExceeded with the stack at the time of the limit."""
        with self._lock:
            self._started, self._thread_id, self._label, self._stack = (
                time.monotonic(),
                threading.get_ident(),
                label,
                "",
            )
        try:
            yield
        except BaseException:
            if not self._finish():
                raise
        else:
            self._finish()
        if self._stack:
            raise StepTimeLimitExceeded(
                f"{label}: one step ran longer than {self.limit:g} s (STEP_TIME_LIMIT); workflow code only decides, "
                f"move the work into an activity. It was at:\n{self._stack}"
            )

    def _finish(self) -> bool:
        """End the watch; return whether the limit was hit. After this no error can arrive any more."""
        with self._lock:
            self._started = None
            if self._stack:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), None)
            return bool(self._stack)

    def _run(self) -> None:
        while not self._stopped:
            self._changed.wait(self.limit / 4)
            with self._lock:
                if self._started is not None and not self._stack and time.monotonic() - self._started > self.limit:
                    frame = sys._current_frames().get(self._thread_id)
                    self._stack = "".join(traceback.format_stack(frame)[-8:]) or "(no Python frame)"
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._thread_id), ctypes.py_object(_LimitHit)
                    )


class _LimitHit(BaseException):
    """Breaks a step open; a BaseException so that `except Exception` in workflow code lets it pass."""

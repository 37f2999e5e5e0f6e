"""Guards around a step: a time limit, and refusal of what replay cannot repeat."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from django_workflows.engine.context import current_machine
from django_workflows.exceptions import NotAllowedInWorkflowError, StepTimeLimitExceeded

T = TypeVar("T")

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
            if sys.version_info < (3, 12):
                _announce_threads()


def _announce_threads() -> None:
    """Do what later versions do themselves: Python 3.11 starts threads without an audit event."""
    start = threading.Thread.start

    def announced_start(self: threading.Thread) -> None:
        _audit("_thread.start_new_thread", ())
        start(self)

    threading.Thread.start = announced_start  # type: ignore[method-assign]


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

    def call(self, label: str, function: Callable[[], T]) -> T:
        """Call a function within the limit; raises StepTimeLimitExceeded with the stack at the time of the limit.

        Not a context manager: the error arrives between any two bytecodes, so all of them must be inside the `try`.
        """
        loop = asyncio._get_running_loop()
        try:
            try:
                self._begin()
                result = function()
            finally:
                self._finish()
        except _LimitHit:
            while self._started is not None:
                try:
                    self._finish()
                except _LimitHit:
                    continue
        except BaseException:
            if not self._stack:
                raise
        else:
            if not self._stack:
                return result
        asyncio._set_running_loop(loop)  # the error may have come before the step could put it back
        raise StepTimeLimitExceeded(
            f"{label}: one step ran longer than {self.limit:g} s (STEP_TIME_LIMIT); workflow code only decides, "
            f"move the work into an activity. It was at:\n{self._stack}"
        )

    def _begin(self) -> None:
        with self._lock:
            self._thread_id, self._stack = threading.get_ident(), ""
            self._started = time.monotonic()

    def _finish(self) -> None:
        """After this no error can arrive any more."""
        with self._lock:
            self._started = None
            is_hit = bool(self._stack)
        if is_hit:
            self._absorb()

    def _absorb(self) -> None:
        """Take an error that may still be on its way, by raising it here.

        Not by `PyThreadState_SetAsyncExc(id, NULL)`: up to Python 3.12 it leaves the request to look for an error set
        for ever, which slows each call of a function, and hangs in one as soon as somebody profiles.
        """
        try:
            self._raise_in_stepping_thread()
            while True:
                pass
        except _LimitHit:
            pass

    def _run(self) -> None:
        while not self._stopped:
            self._changed.wait(self.limit / 4)
            with self._lock:
                if self._started is not None and time.monotonic() - self._started > self.limit:
                    self._hit()

    def _hit(self) -> None:
        """Break the step open, again and again: workflow code may catch what it should let pass."""
        if not self._stack:
            frame = sys._current_frames().get(self._thread_id)
            self._stack = "".join(traceback.format_stack(frame)[-8:]) or "(no Python frame)"
        self._raise_in_stepping_thread()

    def _raise_in_stepping_thread(self) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), ctypes.py_object(_LimitHit))


class _LimitHit(BaseException):
    """Breaks a step open; a BaseException so that `except Exception` in workflow code lets it pass."""

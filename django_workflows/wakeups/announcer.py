"""Sending hints: few, and never in the way of what they are about."""

from __future__ import annotations

import logging
import time

from .carrier import Carrier

logger = logging.getLogger("django_workflows.wakeups")

# A worker that has heard one hint polls every few milliseconds for a while, so it needs no second one.
_QUIET = 0.005
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class Announcer:
    """Sends the hints of this process through a carrier, one every few milliseconds at most.

    An error is logged once; then it is tried again after a pause, so that a carrier that hangs costs little.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._sent: tuple[str, float] = ("", 0.0)  # the last hint, and when
        self._resume = 0.0  # nothing is sent before
        self._pause = 0.0  # seconds, 0 while all is well

    def announce(self, hint: str) -> None:
        """Send a hint unless the same was sent just now; never raises."""
        now = time.monotonic()
        last, when = self._sent
        if now < self._resume or (hint == last and now - when < _QUIET):
            return
        # No lock: it would stay locked in a process forked meanwhile. A second hint now and then does no harm.
        self._sent = (hint, now)
        try:
            self._carrier.send(hint)
        except Exception as error:
            if now >= self._resume:  # else another thread has met the same trouble meanwhile
                self._fail(error)
        else:
            self._succeed()

    def _fail(self, error: Exception) -> None:
        if not self._pause:
            logger.warning("announcing work fails, polling will find it: %s", one_line(error))
        self._pause = min(self._pause * 2 or _SHORTEST_PAUSE, _LONGEST_PAUSE)
        self._resume = time.monotonic() + self._pause

    def _succeed(self) -> None:
        if self._pause:
            logger.info("work is announced again")
        self._pause = self._resume = 0.0


def one_line(error: BaseException) -> str:
    """Return an error as text for one line of a log."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

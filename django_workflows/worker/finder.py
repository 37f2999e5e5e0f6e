"""Finding work: adaptive polls past a watermark, and a look back for what committed late."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from django_workflows.conf import get_settings
from django_workflows.engine.events import (
    CancelRequested,
    SignalReceived,
    SignalWithStart,
    TerminateRequested,
    UpdateRequested,
)
from django_workflows.store import claims, leftovers
from django_workflows.store.database import Database
from django_workflows.store.work import InboxRow, TaskKey

from .activities import ActivityPool, known_names
from .budget import rest_after
from .clock import DatabaseClock
from .held import StickyCache

# Rows become visible in commit order, not in id order: ids younger than this are read again.
_WINDOW = 2.0
_LOOK_BACK = 1.0
# What others send, in an order that counts; outcomes of the instance's own decisions have none.
_MESSAGES = frozenset(
    cls.__name__ for cls in (SignalReceived, SignalWithStart, UpdateRequested, CancelRequested, TerminateRequested)
)
# Candidates fetched per free place, then sampled, so that workers do not all grab for the same first rows.
_OVERFETCH = 4
# Instances claimed at a time: several workers share what was started at once, and it begins sooner.
_MOST_CLAIMS = 200


@dataclass
class Findings:
    """What one poll found."""

    for_held: list[InboxRow] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)  # open keys of unowned instances
    adopted: list[str] = field(default_factory=list)  # owned by this worker, but not in its memory
    tasks: list[TaskKey] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.for_held or self.candidates or self.adopted or self.tasks)


class Finder:
    """Polls for one worker; knows when the next poll is due."""

    def __init__(
        self, database: Database, clock: DatabaseClock, worker_id: int, queues: Sequence[str], cache: StickyCache,
        pool: ActivityPool | None, *, workflows: bool,
    ) -> None:  # fmt: skip
        self.database, self.clock, self.worker_id, self.queues = database, clock, worker_id, list(queues)
        self.cache, self.pool, self.workflows = cache, pool, workflows
        settings = get_settings()
        self._shortest, self._longest = settings.poll_interval_min, settings.poll_interval_max
        self._interval = self._shortest
        self.due = 0.0
        self._look_back_due = 0.0
        self._look_back_cost = 0.0  # in seconds, of the last one
        self._highest: deque[tuple[float, int]] = deque()
        self._watermark = 0
        self._left: list[str] = []  # the candidates of the last poll: the same again means that others hold them

    def hint(self) -> None:
        """Make the next poll due now: somebody says that there is work."""
        self.due = 0.0
        self._interval = self._shortest

    def look_back_soon(self) -> None:
        """Have a poll read again what others before have read: some of it is now for somebody else."""
        self.hint()
        soon = rest_after(self._look_back_cost, share=0.1, shortest=0.0)
        self._look_back_due = min(self._look_back_due, time.monotonic() + soon)

    def poll(self, room: int) -> Findings:
        """Look for work; `room` is how many instances may be claimed."""
        # One question in place of all polls once a poll has found nothing, unless there was a hint since.
        is_idle = self._interval > self._shortest
        findings = Findings() if is_idle and not self._may_find() else self._find(min(room, _MOST_CLAIMS))
        self._interval = self._shortest if findings else min(self._interval * 2, self._longest)
        self.due = time.monotonic() + self._interval
        return findings

    def _may_find(self) -> bool:
        now = time.monotonic()
        looking_back = now >= self._look_back_due
        found = claims.may_find(
            self.database, self.queues, 0 if looking_back else self._watermark, self.clock.now(),
            workflows=self.workflows, activities=self.pool is not None,
        )  # fmt: skip
        if looking_back and not found:
            self._look_back_due = now + _LOOK_BACK
        return found

    def _find(self, most: int) -> Findings:
        findings = Findings()
        if self.workflows:
            self._find_inbox(findings, most)
            self._find_timers(findings)
            # Sampled, so that workers do not all reach for the same ones.
            random.shuffle(findings.candidates)
            del findings.candidates[most:]
        if self.pool is not None:
            self._find_tasks(findings, self.pool)
        return findings

    def _find_inbox(self, findings: Findings, most: int) -> None:
        looking_back = time.monotonic() >= self._look_back_due
        started = time.monotonic()
        after = 0 if looking_back else self._watermark
        rows = claims.poll_inbox(self.database, self.queues, after)
        if looking_back:
            now = time.monotonic()
            self._look_back_cost = now - started
            self._look_back_due = now + rest_after(self._look_back_cost, share=0.01, shortest=_LOOK_BACK)
        garbage, blocked = [], []
        for row in rows:
            if row.open_key is None:
                garbage.append(row)
            elif row.owner == self.worker_id:
                self._sort_own(row, findings)
            elif row.owner is None:
                (blocked.append(row) if row.blocks else findings.candidates.append(row.open_key))
        self._complete(findings, from_the_start=not after)
        if garbage:
            leftovers.collect_inbox(self.database, garbage)
        if blocked:
            leftovers.park_blocked(self.database, blocked)
        findings.candidates = list(dict.fromkeys(findings.candidates))
        findings.adopted = list(dict.fromkeys(findings.adopted))
        if len(rows) < claims.POLL_LIMIT:
            self._advance(rows[-1].id if rows else 0)
        elif len(findings.candidates) <= most or findings.candidates == self._left:
            # More than a page waits: go on behind it next time, the look back returns to what is left.
            self._watermark = rows[-1].id
        self._left = findings.candidates[:]

    def _sort_own(self, row: InboxRow, findings: Findings) -> None:
        if self.cache.get(row.chain) is not None:
            findings.for_held.append(row)
        elif row.open_key is not None:
            findings.adopted.append(row.open_key)

    def _complete(self, findings: Findings, *, from_the_start: bool) -> None:
        """Have the messages of each instance read in their order, and long inboxes where what was read is used up.

        A message that took its id long before it was committed may be below the watermark, and the next of its sender
        above.
        """
        long = {held.chain.chain: held for held in self.cache if held.has_more}
        chains = {chain for chain, held in long.items() if not held.inputs}
        if not from_the_start:
            chains |= {row.chain for row in findings.for_held if row.type in _MESSAGES} - long.keys()
        as_found = [
            row
            for row in findings.for_held
            if row.type not in _MESSAGES or (row.chain not in chains and row.chain not in long)
        ]
        in_order = claims.load_inboxes(self.database, chains)
        counts = Counter(row.chain for row in in_order)
        for chain in chains:
            held = self.cache.get(chain)
            assert held is not None
            held.has_more = counts[chain] >= claims.INBOX_LIMIT
        findings.for_held = as_found + in_order

    def _advance(self, highest: int) -> None:
        now = time.monotonic()
        if highest:
            self._highest.append((now, highest))
        while self._highest and self._highest[0][0] <= now - _WINDOW:
            self._watermark = max(self._watermark, self._highest.popleft()[1])

    def _find_timers(self, findings: Findings) -> None:
        for key, chain, own in claims.poll_timers(self.database, self.worker_id, self.queues, self.clock.now()):
            if not own:
                findings.candidates.append(key)
            elif self.cache.get(chain) is None:
                findings.adopted.append(key)
        findings.candidates = list(dict.fromkeys(findings.candidates))
        findings.adopted = list(dict.fromkeys(findings.adopted))

    def _find_tasks(self, findings: Findings, pool: ActivityPool) -> None:
        for is_async in (False, True):
            room = pool.room(is_async=is_async)
            names = known_names(is_async=is_async)
            if room > 0 and names:
                limit = min(_OVERFETCH * room, claims.POLL_LIMIT)
                found = claims.poll_tasks(self.database, self.queues, names, self.clock.now(), limit)
                random.shuffle(found)
                findings.tasks += found[:room]

"""The signals and updates of an execution: who handles them, which are unfinished, what is left at the end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec

from django_workflows.failures import Failure

from . import events as ev
from .decisions import Decisions
from .ending import Ending
from .handlers import Handlers, Work
from .signals import SignalBuffers


class Messages:
    """Starts the handlers of messages and keeps what is not handled yet."""

    def __init__(self, handlers: Handlers, decisions: Decisions, ending: Ending, signals: SignalBuffers) -> None:
        self.handlers = handlers
        self._decisions, self._ending, self._signals = decisions, ending, signals
        self._not_begun: deque[ev.CarriedSignal] = deque()  # signals whose handlers are about to
        self._open_updates: dict[str, None] = {}  # those accepted and not answered, in order

    def handles(self, name: str) -> bool:
        """Tell whether signals of this name have a handler."""
        return self.handlers.signal(name, ev.NULL) is not None

    @property
    def in_progress(self) -> bool:
        """Whether a signal or an update is being handled."""
        return self._ending.has_handlers

    def receive(self, signal: ev.CarriedSignal) -> None:
        """Hand a signal to its handler, or keep it until the code asks for it."""
        work = None if self._ending.has_returned else self.handlers.signal(signal.name, signal.value)
        if work is None:
            self._signals.add(signal.name, signal.value)
        else:
            self._not_begun.append(signal)
            self._ending.start_handler(f"signal {signal.name}", partial(self._handle, signal, work))

    def accept(self, update: ev.UpdateRequested) -> None:
        """Begin to handle an update; its answer is a decision."""
        work = self.handlers.update(update.name, update.input)
        self._open_updates[update.update_id] = None
        self._ending.start_handler(f"update {update.name}", partial(self._answer, update.update_id, work))

    def unread(self) -> list[ev.CarriedSignal]:
        """Return the signals that nobody has seen, for the next execution."""
        return [*self._not_begun, *self._signals.unread()]

    def unanswered(self, why: Callable[[], Failure]) -> list[ev.UpdateFailed]:
        """Return what ends the open updates where no code decides it."""
        return [ev.UpdateFailed(command=0, update_id=update, failure=why()) for update in self._open_updates]

    def fail_open_updates(self, why: Callable[[], Failure]) -> None:
        """Decide that the open updates get no answer."""
        for update_id in list(self._open_updates):
            self._fail(update_id, why())

    async def _handle(self, signal: ev.CarriedSignal, work: Work[None]) -> None:
        self._not_begun.remove(signal)
        await work()

    async def _answer(self, update_id: str, work: Work[bytes]) -> None:
        try:
            result = await work()
        except asyncio.CancelledError as error:
            if not self._ending.is_winding_down:  # the code itself gave the handler up
                self._fail(update_id, Failure.of(error))
            raise
        except Exception as error:
            self._fail(update_id, Failure.of(error))
        else:
            self._decide(ev.UpdateCompleted(
                command=self._decisions.next_command(), update_id=update_id, result=msgspec.Raw(result)
            ))  # fmt: skip

    def _fail(self, update_id: str, failure: Failure) -> None:
        self._decide(ev.UpdateFailed(command=self._decisions.next_command(), update_id=update_id, failure=failure))

    def _decide(self, answer: ev.AnswerEvent) -> None:
        del self._open_updates[answer.update_id]
        self._decisions.decide(answer)

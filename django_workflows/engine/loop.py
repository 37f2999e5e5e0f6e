"""The deterministic asyncio event loop on which one instance's code runs.

It has a queue of ready callbacks and nothing else: time stands still while it runs, a delayed call is a durable timer,
and tasks and futures hash by their creation number, so that sets of them iterate alike in every process.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple, Unpack

from django_workflows.exceptions import NotAllowedInWorkflowError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_as_completed = asyncio.as_completed


class Numbered(Protocol):
    number: int


class NumberedFuture(asyncio.Future[Any]):
    """A future whose hash is its creation number."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its creation number."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class DurableTimerHandle(asyncio.TimerHandle):
    """The handle of `call_at`; cancelling it cancels the durable timer behind it."""

    def __init__(
        self, when: float, callback: Callable[..., object], args: Any, loop: WorkflowLoop, context: Any
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.on_cancel: Callable[[], None] | None = None

    def cancel(self) -> None:
        if not self.cancelled() and self.on_cancel is not None:
            self.on_cancel()
        super().cancel()


class LoopHost(Protocol):
    """What the loop asks of the machine that owns it."""

    def time(self) -> float: ...

    def start_timer_at(self, when: float, handle: DurableTimerHandle) -> None: ...

    def task_created(self, task: NumberedTask) -> None: ...

    def unhandled(self, message: str, exception: BaseException | None) -> None: ...


class WorkflowLoop(asyncio.AbstractEventLoop):
    """An event loop that runs ready callbacks in FIFO order until none is left."""

    def __init__(self, host: LoopHost) -> None:
        self.host = host
        self._ready: deque[asyncio.Handle] = deque()
        self._created = 0

    def run_ready(self) -> None:
        """Run callbacks until all coroutines wait; the caller has made this the thread's running loop."""
        ready = self._ready
        while ready:
            handle = ready.popleft()
            if not handle.cancelled():
                try:
                    handle._run()
                except (SystemExit, KeyboardInterrupt):
                    # Raised by workflow code; the task keeps it as its exception, which ends the instance as failed.
                    # Letting it through would end the worker instead.
                    pass

    def _number(self) -> int:
        self._created += 1
        return self._created

    # What asyncio's tasks, futures and primitives call

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: Unpack[Ts], context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: Unpack[Ts],
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.host.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: Unpack[Ts],
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = DurableTimerHandle(when, callback, args, self, context)
        if when <= self.host.time():
            self._ready.append(handle)
        else:
            self.host.start_timer_at(when, handle)
        return handle

    def run_handle(self, handle: asyncio.Handle) -> None:
        """Make a handle ready, such as that of a timer that fired."""
        self._ready.append(handle)

    def time(self) -> float:
        return self.host.time()

    def create_future(self) -> NumberedFuture:
        future = NumberedFuture(loop=self)
        future.number = self._number()
        return future

    def adopt(self, future: Numbered) -> None:
        """Give a future of a subclass its creation number."""
        future.number = self._number()

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # type: ignore[override]
        number = self._number()
        options.pop("eager_start", None)  # 3.14: a task that starts eagerly would run before its number is known
        name = options.pop("name", None) or f"task-{number}"
        task: NumberedTask = NumberedTask(coro, loop=self, name=name, **options)
        task.number = number
        self.host.task_created(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.host.unhandled(context.get("message", ""), context.get("exception"))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: DurableTimerHandle.cancel() has told the machine."""


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: WorkflowLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotAllowedInWorkflowError(
            f"workflow code called {name}, which cannot be replayed: threads, processes, sockets, files, signals and the "
            "ORM belong into an activity; move this call into one"
        )

    refuse.__name__ = name
    return refuse


_IMPLEMENTED = set(vars(WorkflowLoop))
for _name in vars(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in _IMPLEMENTED:
        setattr(WorkflowLoop, _name, _refusal(_name))
WorkflowLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def _ordered_as_completed(fs: Any, *args: Any, **kwargs: Any) -> Any:
    """Wrap `asyncio.as_completed`, which puts bare coroutines into a set ordered by memory address.

    On a workflow's loop each awaitable becomes a numbered task first, in the given order; elsewhere nothing changes.
    """
    if isinstance(asyncio._get_running_loop(), WorkflowLoop):
        fs = [asyncio.ensure_future(awaitable) for awaitable in fs]
    return _as_completed(fs, *args, **kwargs)


asyncio.as_completed = _ordered_as_completed

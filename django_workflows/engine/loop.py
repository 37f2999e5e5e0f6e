"""The deterministic asyncio event loop on which one instance's code runs.

It has a queue of ready callbacks and nothing else: time stands still while it runs, a delayed call is a durable timer,
and tasks and futures hash by their creation number, so that sets of them iterate alike in every process.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple

from django_workflows.exceptions import NotAllowedInWorkflowError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class MachineDisposed(BaseException):
    """Raised into clean-up code that runs while its machine leaves memory."""


class Numbered(Protocol):
    number: int


class NumberedFuture(asyncio.Future[Any]):
    """A future whose hash is its creation number."""

    number = 0

    def __hash__(self) -> int:
        return self.number or object.__hash__(self)


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its creation number.

    Until it has one, it hashes by address: that is when asyncio enters it into its table of all tasks, in which equal
    numbers of many machines would collide.
    """

    number = 0

    def __hash__(self) -> int:
        return self.number or object.__hash__(self)


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

    @property
    def closed(self) -> bool: ...

    def refuse_where_restricted(self, what: str) -> None: ...

    def task_created(self, task: NumberedTask) -> None: ...

    def task_dropped(self, task: NumberedTask, error: BaseException) -> None: ...

    def callback_failed(self, error: BaseException) -> None: ...

    def running_tasks(self) -> list[NumberedTask]: ...


class WorkflowLoop(asyncio.AbstractEventLoop):
    """An event loop that runs ready callbacks in FIFO order until none is left."""

    def __init__(self, host: LoopHost) -> None:
        self.host = host
        self._ready: deque[asyncio.Handle] = deque()
        self._created = 0
        self._halted = False

    def run_ready(self) -> None:
        """Run callbacks until all coroutines wait; the caller has made this the thread's running loop."""
        ready = self._ready
        while ready and not self._halted:
            handle = ready.popleft()
            if not handle.cancelled():
                try:
                    handle._run()
                except (SystemExit, KeyboardInterrupt) as error:
                    # Raised by workflow code: it ends the instance as failed. Letting it through would end the worker.
                    error.__traceback__ = _without_asyncio(error.__traceback__)
                    self.host.callback_failed(error)
            # The frames in a task's traceback may keep this frame alive, and this variable another failed task.
            del handle

    def halt(self) -> None:
        """Run no further callback."""
        self._halted = True

    def clear(self) -> None:
        """Forget the callbacks that have not run."""
        self._ready.clear()

    def _number(self) -> int:
        self._created += 1
        return self._created

    # What asyncio's tasks, futures and primitives call

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.host.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
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
        try:
            self.host.refuse_where_restricted("a task")
        except Exception:
            coro.close()
            raise
        if self.host.closed:
            # Clean-up code of a disposed machine: the task will never run, and nobody needs to hear of it.
            coro.close()
        number = self._number()
        options.pop("eager_start", None)  # 3.14: a task that starts eagerly would run before its number is known
        name = options.pop("name", None) or f"task-{number}"
        task: NumberedTask = NumberedTask(coro, loop=self, name=name, **options)
        task.number = number
        if self.host.closed:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        else:
            self.host.task_created(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error, future = context.get("exception"), context.get("future")
        if error is None:
            return
        if future is None:
            self.host.callback_failed(error)
        elif isinstance(future, NumberedTask):
            # Its exception was never retrieved, and it is being deleted.
            self.host.task_dropped(future, error)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: DurableTimerHandle.cancel() has told the machine."""


_KNOWN_AS = {
    "run_in_executor": "run_in_executor (as asyncio.to_thread, sync_to_async and the async ORM do)",
    "create_connection": "create_connection (as asyncio.open_connection does)",
    "subprocess_exec": "subprocess_exec (as asyncio.create_subprocess_exec does)",
    "subprocess_shell": "subprocess_shell (as asyncio.create_subprocess_shell does)",
}


def _without_asyncio(traceback: TracebackType | None) -> TracebackType | None:
    """Shorten a traceback to workflow code; the variables of the outer frames hold on to the failed task."""
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") in (__name__, "asyncio.events"):
        if traceback.tb_frame.f_globals is not globals():
            traceback.tb_frame.clear()
        traceback = traceback.tb_next
    return traceback


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: WorkflowLoop, *args: Any, **kwargs: Any) -> NoReturn:
        for argument in args:
            if asyncio.iscoroutine(argument):
                argument.close()
        raise NotAllowedInWorkflowError(
            f"workflow code called {_KNOWN_AS.get(name, name)}, which cannot be replayed: threads, processes, sockets, "
            "files, operating system signals and the ORM belong into an activity; move this call into one"
        )

    refuse.__name__ = name
    return refuse


_IMPLEMENTED = set(vars(WorkflowLoop))
for _name in vars(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in _IMPLEMENTED:
        setattr(WorkflowLoop, _name, _refusal(_name))
WorkflowLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]

"""How an execution ends: the outcome of its main task, of tasks that nobody awaits, and the clean-up in between.

The rules are those of `asyncio.run`, with two more: what was started is not forgotten, and no failure is. A workflow
that returns waits for the activities and children it started; then its other tasks are cancelled, and the execution
closes when their clean-up code has ended.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .events import BackgroundTaskFailed, CommandEvent
from .handlers import Work
from .loop import MachineDisposed, NumberedTask, WorkflowLoop

if TYPE_CHECKING:
    from .commands import Commands

T = TypeVar("T")

_MOST_THROWS = 100


class ContinueAsNewRequest(BaseException):
    """Raised by `workflow.continue_as_new()`; a BaseException so that `except Exception` lets it pass."""

    def __init__(self, input: bytes, version: str = "") -> None:
        self.input = input
        self.version = version


class Ending:
    """Follows the tasks of one execution and finds its outcome."""

    def __init__(self, commands: Commands, loop: WorkflowLoop) -> None:
        self.tasks: dict[int, NumberedTask] = {}  # those that run
        self.main: NumberedTask | None = None
        self.result: bytes | None = None  # of the main task
        self.failure: BaseException | None = None  # why the execution fails or is cancelled, once that is certain
        self.continue_request: ContinueAsNewRequest | None = None
        self.cancel_requested = False
        self.recorded: CommandEvent | None = None  # on replay, the failure found at the event that is replayed
        self.is_replaying = False
        self._commands = commands
        self._loop = loop
        self._winding_down = False
        self._stuck: list[NumberedTask] = []
        self._generators: list[AsyncGenerator[Any, Any]] = []  # those that have begun, some finished
        self._most_generators = 100
        self._handlers: set[int] = set()  # the tasks among them that handle a signal or an update
        self._failed: dict[int, weakref.ref[NumberedTask]] = {}  # tasks whose exception may still be retrieved
        self._dropped: dict[int, BaseException] = {}  # exceptions that nobody can retrieve any more

    # What the loop reports

    def task_created(self, task: NumberedTask) -> None:
        self.tasks[task.number] = task
        task.add_done_callback(self._task_done)

    def task_dropped(self, task: NumberedTask, error: BaseException) -> None:
        """Take note of a failed task that is being deleted before anybody has retrieved its exception."""
        # Called by the garbage collector, at any moment and in any thread: it may only add.
        if task is not self.main:
            self._dropped[task.number] = error

    def start_main(self, work: Work[bytes]) -> None:
        """Begin the workflow itself."""
        main = self._loop.create_task(self._heed(work), name="main")
        assert isinstance(main, NumberedTask)
        self.main = main
        if self.cancel_requested:
            main.cancel()

    def start_handler(self, name: str, work: Work[None]) -> None:
        """Begin to handle a message; a workflow that returns waits for it, and fails with it."""
        task = self._loop.create_task(self._heed(work), name=name)
        assert isinstance(task, NumberedTask)
        self._handlers.add(task.number)

    async def _heed(self, work: Work[T]) -> T:
        try:
            return await work()
        except BaseException as error:
            # Before another task runs: what a handler did from here on would be lost.
            self._take_request(error)
            raise

    def _take_request(self, error: BaseException) -> bool:
        """Continue as new if that is what ended a task, and it is open yet how the execution ends."""
        request = _find_request(error)
        if request is None or self.failure is not None or self._winding_down:
            return False
        self.continue_request = request
        self._loop.halt()
        return True

    def callback_failed(self, error: BaseException) -> None:
        """Fail for an error in a bare callback, which no task can carry."""
        if self.failure is None and not any(_exception_of(task) is error for task in self.tasks.values()):
            self.failure = error

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, NumberedTask)
        self.tasks.pop(task.number, None)
        is_handler = task.number in self._handlers
        self._handlers.discard(task.number)
        error = _exception_of(task)
        if error is None:
            return
        if self._take_request(error):
            task._log_traceback = False
        elif is_handler:
            task._log_traceback = False
            self.failure = self.failure or error
        elif task is not self.main:
            _release_parent_tasks(error)
            number, failed = task.number, self._failed
            failed[number] = weakref.ref(task, lambda ref: failed.pop(number, None) and None)

    def generator_started(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Hold on to an async generator: left to the garbage collector, its clean-up code would run at any moment."""
        if len(self._generators) >= self._most_generators:
            self._generators = self._open_generators()
            self._most_generators = 2 * len(self._generators) + 100
        self._generators.append(generator)

    # What the machine asks

    def cancel(self, reason: str) -> None:
        """Cancel the main task; where it has returned already, give up waiting for what it started."""
        self.cancel_requested = True
        if self.main is None:
            return
        if not self.main.done():
            self._cancel(self.main, reason or None)
        elif self.failure is None:
            self.failure = asyncio.CancelledError(reason)

    def advance(self) -> bool:
        """Move towards the close when all coroutines wait; return whether callbacks became ready."""
        if self._winding_down:
            return not self.tasks and self._close_generators()
        self._look_at_main()
        if self.failure is None:
            self.failure = self._find_dropped()
        if self.failure is None:
            if self.result is None or self._commands.are_awaited or self._handlers:
                return False
            self.failure = self._find_unretrieved()
        self._winding_down = True
        for task in list(self.tasks.values()):
            self._cancel(task)
        return True

    @property
    def has_returned(self) -> bool:
        """Whether the workflow itself has ended, well or badly."""
        return self.main is not None and self.main.done()

    @property
    def is_running(self) -> bool:
        """Whether the workflow itself has begun and not ended."""
        return self.main is not None and not self.main.done() and self.failure is None

    @property
    def is_winding_down(self) -> bool:
        """Whether it is certain how the execution ends, and only clean-up code runs."""
        return self._winding_down

    @property
    def has_handlers(self) -> bool:
        """Whether a signal or an update is being handled."""
        return bool(self._handlers)

    @property
    def is_over(self) -> bool:
        """Whether the execution can close."""
        if self.continue_request is not None:
            return True
        if not self._winding_down or self.tasks:
            return False
        if self.failure is None:
            self.failure = self._find_unretrieved()  # raised by clean-up code
        return True

    def abandon(self) -> None:
        """End all coroutines for good; what their clean-up code awaits never happens."""
        for task in [*self.tasks.values(), *self._stuck]:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Any = task.get_coro()
            _throw_out(coroutine.throw)
        for generator in self._open_generators():
            _throw_out(generator.aclose().throw)
        self._generators = []

    def _cancel(self, task: NumberedTask, message: str | None = None) -> None:
        try:
            task.cancel(message)
        except RecursionError:
            # asyncio cannot cancel such tasks, and nothing else can wake them: they are left behind.
            self._stuck.append(self.tasks.pop(task.number))
            self.failure = self.failure or RuntimeError(
                f"task {task.get_name()!r} cannot be cancelled: it waits for tasks that wait for it, in a circle"
            )

    def _close_generators(self) -> bool:
        unfinished, self._generators = self._open_generators(), []
        for generator in unfinished:
            self._loop.create_task(_close(generator))
        return bool(unfinished)

    def _open_generators(self) -> list[AsyncGenerator[Any, Any]]:
        return [generator for generator in self._generators if generator.ag_frame is not None]  # type: ignore[attr-defined]

    def _look_at_main(self) -> None:
        if self.main is None or not self.main.done() or self.result is not None or self.failure is not None:
            return
        try:
            self.result = self.main.result()
        except BaseException as error:
            self.failure = error

    def _find_dropped(self) -> BaseException | None:
        """Return the exception of a task that nobody can await any more: it is the instance's own then."""
        if self.is_replaying:
            return self._find_recorded()
        if not self._dropped:
            return None
        number = min(self._dropped)
        self._commands.decide(BackgroundTaskFailed(command=self._commands.next_number(), task=number))
        return self._dropped[number]

    def _find_recorded(self) -> BaseException | None:
        if not isinstance(self.recorded, BackgroundTaskFailed):
            return None
        number = self.recorded.task
        ref = self._failed.get(number)
        task = None if ref is None else ref()
        error = self._dropped.get(number) if task is None else _exception_of(task)
        if error is not None:
            self._commands.decide(BackgroundTaskFailed(command=self._commands.next_number(), task=number))
        return error

    def _find_unretrieved(self) -> BaseException | None:
        """Return the exception of the first task whose exception nobody has retrieved."""
        errors = self._dropped.copy()
        for number, ref in self._failed.copy().items():
            task = ref()
            if task is not None and task._log_traceback and (error := _exception_of(task)) is not None:
                errors[number] = error
        return errors[min(errors)] if errors else None


def _exception_of(task: NumberedTask) -> BaseException | None:
    # Not `task.exception()`, which would mark it as retrieved.
    return task._exception if task.done() and not task.cancelled() else None


def _find_request(error: BaseException) -> ContinueAsNewRequest | None:
    """Return the request that a task ended with, alone or out of task groups, unless something else failed there."""
    if isinstance(error, ContinueAsNewRequest):
        return error
    if isinstance(error, BaseExceptionGroup):
        requests = [_find_request(member) for member in error.exceptions]
        return requests[0] if all(requests) else None
    return None


def _release_parent_tasks(error: BaseException) -> None:
    """Let go of a failed task where its own traceback holds it, through a task group that it has left.

    Later versions of Python do this themselves. Without it, only the garbage collector finds out that nobody else does.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        group = frame.f_locals.get("self") if frame.f_code.co_name == "__aexit__" else None
        if isinstance(group, asyncio.TaskGroup):
            group._parent_task = None  # type: ignore[attr-defined]


async def _close(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


def _throw_out(throw: Callable[[BaseException], object]) -> None:
    # Each throw carries clean-up code over one await; what it awaits has no meaning any more.
    for _ in range(_MOST_THROWS):
        try:
            throw(MachineDisposed())
        except BaseException:
            break

"""Every history of every generated workflow replays: whole, and cut at any event with the rest fed live.

A workflow is drawn as a tree of statements, which one generic workflow function interprets. The runtime is drawn too:
in which order things finish, which activities fail, how events are batched, when signals and a cancellation come.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_workflows import Await, Case, Channel, Default, Receive, Send, Signal, workflow
from django_workflows.engine import events as ev
from django_workflows.failures import Failure

from .activities import CardDeclined, clean_up, echo
from .harness import Run, assert_replays, completed, signal

message = Signal("message", int)

Tree = list[Any]  # [kind, argument or children...]: JSON, as an instance's input is


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Keep out what would differ between two live runs: when garbage is collected decides when a failure is found."""
    logging.disable(logging.WARNING)  # of the signals that do not fit their type
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


# The interpreter


@dataclass
class State:
    """What the statements of one execution share."""

    tasks: list[asyncio.Future[Any]] = field(default_factory=list)
    queue: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    event: asyncio.Event = field(default_factory=asyncio.Event)
    channels: list[Channel[int]] = field(default_factory=lambda: [Channel(), Channel(1)])
    counter: int = 0


Statement = Callable[[State, list[Any]], Coroutine[Any, Any, Any]]
STATEMENTS: dict[str, Statement] = {}


def statement(function: Statement) -> Statement:
    STATEMENTS[function.__name__.strip("_")] = function
    return function


async def execute(state: State, tree: Tree) -> Any:
    return await STATEMENTS[tree[0]](state, tree[1:])


async def interpret(trees: list[Tree]) -> int:
    state = State()
    for tree in trees:
        await execute(state, tree)
    return state.counter


@statement
async def activity(state: State, arguments: list[Any]) -> Any:
    state.counter += 1
    return await echo(arguments[0])


@statement
async def timer(state: State, arguments: list[Any]) -> None:
    await asyncio.sleep(arguments[0])


@statement
async def receive(state: State, arguments: list[Any]) -> None:
    state.counter += await message.receive()


@statement
async def receive_nowait(state: State, arguments: list[Any]) -> None:
    try:
        state.counter += message.receive_nowait()
    except asyncio.QueueEmpty:
        await echo("no message")


@statement
async def side_effect(state: State, arguments: list[Any]) -> None:
    found = workflow.side_effect(lambda: 17)
    await echo([found, workflow.random().randint(0, 9), str(workflow.uuid4()), workflow.time()])


@statement
async def broken_side_effect(state: State, arguments: list[Any]) -> None:
    try:
        workflow.side_effect(lambda: 1 // 0)
    except ZeroDivisionError:
        await echo("divided")


@statement
async def sequence(state: State, children: list[Tree]) -> None:
    for child in children:
        await execute(state, child)


@statement
async def gather(state: State, children: list[Tree]) -> None:
    await asyncio.gather(*[execute(state, child) for child in children])


@statement
async def gather_all(state: State, children: list[Tree]) -> None:
    found = await asyncio.gather(*[execute(state, child) for child in children], return_exceptions=True)
    await echo([str(one) for one in found])


@statement
async def task_group(state: State, children: list[Tree]) -> None:
    async with asyncio.TaskGroup() as group:
        for child in children:
            group.create_task(execute(state, child))
        await asyncio.sleep(0)


@statement
async def timeout(state: State, children: list[Tree]) -> None:
    try:
        async with asyncio.timeout(len(children)):
            for child in children:
                await execute(state, child)
    except TimeoutError:
        await clean_up("timeout")


@statement
async def wait_for(state: State, children: list[Tree]) -> None:
    try:
        await asyncio.wait_for(sequence(state, children), 2)
    except TimeoutError:
        state.counter += 10


@statement
async def shield(state: State, children: list[Tree]) -> None:
    task = asyncio.create_task(sequence(state, children))
    state.tasks.append(task)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await clean_up("shield")
        raise


@statement
async def first(state: State, children: list[Tree]) -> None:
    tasks = {asyncio.create_task(execute(state, child), name=str(number)) for number, child in enumerate(children)}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await echo([task.get_name() for task in done])
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, *done, return_exceptions=True)


@statement
async def as_completed(state: State, children: list[Tree]) -> None:
    for number, following in enumerate(asyncio.as_completed([execute(state, child) for child in children])):
        await following
        await echo(number)


@statement
async def spawn(state: State, children: list[Tree]) -> None:
    state.tasks.append(asyncio.create_task(sequence(state, children)))


@statement
async def drop(state: State, children: list[Tree]) -> None:
    asyncio.create_task(sequence(state, children))  # noqa: RUF006


@statement
async def cancel(state: State, arguments: list[Any]) -> None:
    if state.tasks:
        state.tasks[arguments[0] % len(state.tasks)].cancel()


@statement
async def join(state: State, arguments: list[Any]) -> None:
    if state.tasks:
        await state.tasks.pop(0)


@statement
async def handle(state: State, children: list[Tree]) -> None:
    try:
        await sequence(state, children)
    except Exception as error:
        await clean_up(type(error).__name__)


@statement
async def finally_(state: State, children: list[Tree]) -> None:
    try:
        await sequence(state, children)
    finally:
        await clean_up("finally")


@statement
async def swallow(state: State, children: list[Tree]) -> None:
    try:
        await sequence(state, children)
    except asyncio.CancelledError:
        await clean_up("swallow")


@statement
async def locked(state: State, children: list[Tree]) -> None:
    async with state.lock:
        await activity(state, ["locked"])


@statement
async def put(state: State, arguments: list[Any]) -> None:
    state.queue.put_nowait(arguments[0])


@statement
async def get(state: State, arguments: list[Any]) -> None:
    await echo(await state.queue.get())


@statement
async def channel_send(state: State, arguments: list[Any]) -> None:
    await state.channels[arguments[0] % 2].send(arguments[0])


@statement
async def channel_receive(state: State, arguments: list[Any]) -> None:
    await echo(await state.channels[arguments[0] % 2].receive())


@statement
async def channel_close(state: State, arguments: list[Any]) -> None:
    state.channels[arguments[0] % 2].close()


@statement
async def select(state: State, arguments: list[Any]) -> None:
    """Select among the drawn cases and the child statements, which go on as tasks that can be joined or cancelled."""
    tasks = [Await(execute(state, child)) for child in arguments[1:]]
    state.tasks += [task.future for task in tasks]
    cases: list[Case[Any]] = [*[new_case(state, drawn) for drawn in arguments[0]], *tasks]
    chosen = await workflow.select(*cases)
    await echo([cases.index(chosen), chosen.result()])


def new_case(state: State, drawn: str) -> Case[Any]:
    kind, _, number = drawn.partition(" ")
    match kind:
        case "receive":
            return Receive(state.channels[int(number)])
        case "send":
            return Send(state.channels[int(number)], state.counter)
        case "signal":
            return Receive(message)
    return Default()


@statement
async def set_(state: State, arguments: list[Any]) -> None:
    state.event.set()
    state.counter += 1


@statement
async def wait(state: State, arguments: list[Any]) -> None:
    await state.event.wait()


@statement
async def condition(state: State, arguments: list[Any]) -> None:
    await workflow.wait_condition(lambda: state.counter >= arguments[0], timeout=3)


@statement
async def fail(state: State, arguments: list[Any]) -> None:
    raise CardDeclined(str(arguments[0]))


@statement
async def call_soon(state: State, arguments: list[Any]) -> None:
    asyncio.get_running_loop().call_soon(state.event.set)
    asyncio.get_running_loop().call_later(2, state.queue.put_nowait, 7)


# What is drawn

numbers = st.integers(0, 4)
leaves = st.one_of(
    st.tuples(
        st.sampled_from([
            "activity", "activity", "timer", "condition", "cancel", "put", "fail", "channel_send", "channel_receive",
            "channel_close",
        ]),
        numbers,
    ),
    st.tuples(
        st.sampled_from([
            "receive", "receive_nowait", "side_effect", "broken_side_effect", "join", "locked", "get", "set", "wait",
            "call_soon",
        ])
    ),
)  # fmt: skip
NESTS = [
    "sequence", "gather", "gather_all", "task_group", "timeout", "wait_for", "shield", "first", "as_completed", "spawn",
    "drop", "handle", "finally", "swallow",
]  # fmt: skip

CASES = st.sampled_from(["receive 0", "receive 1", "send 0", "send 1", "signal", "signal", "default"])


def nests(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(children, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda kind, inner: (kind, *inner), st.sampled_from(NESTS), several),
        st.builds(lambda cases, inner: ("select", cases, *inner), st.lists(CASES, max_size=3), several),
    )


trees = st.recursive(leaves, nests, max_leaves=12)
programs = st.lists(trees, min_size=1, max_size=4)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Draw a program and run it under a drawn runtime, batch by batch, until it closes or nothing is left to happen."""
    signals = tuple(ev.CarriedSignal("message", signal("message", 3).value) for _ in range(draw(st.integers(0, 2))))
    ran = Run(interpret, draw(programs), signals=signals)
    try:
        drive(draw, ran)
    except BaseException:  # Hypothesis gives up on an example in the middle of it
        ran.machine.dispose()
        raise
    return ran


def drive(draw: st.DrawFn, ran: Run) -> None:
    cancels = draw(st.integers(0, 12))  # at which batch; late ones mean never
    for batch in range(25):
        if ran.closing is not None:
            break
        inputs = draw_inputs(draw, ran)
        if batch == cancels:
            inputs.insert(draw(st.integers(0, len(inputs))), ev.CancelRequested("drawn"))
        if not inputs:
            break
        ran.send(*inputs)


def draw_inputs(draw: st.DrawFn, ran: Run) -> list[ev.InputEvent]:
    """Draw what comes in together: outcomes of open commands in any order, due timers, a signal now and then."""
    work = [event for event in ran.open() if isinstance(event, ev.ActivityScheduled)]
    chosen = draw(st.permutations(work))[: draw(st.integers(0, 3))]
    inputs: list[ev.InputEvent] = [outcome(draw, event) for event in chosen]
    if draw(st.booleans()):
        inputs.insert(draw(st.integers(0, len(inputs))), signal("message", draw(st.sampled_from([1, 2, "wrong"]))))
    timer = ran.next_timer()
    if timer is not None and (not inputs or draw(st.booleans())):
        ran.now = max(ran.now, timer.fire_at)
        due = [event for event in ran.open() if isinstance(event, ev.TimerStarted) and event.fire_at <= ran.now]
        inputs += [
            ev.TimerFired(event.command) for event in sorted(due, key=lambda event: (event.fire_at, event.command))
        ]
    if not inputs and work:
        inputs.append(outcome(draw, work[0]))
    return inputs


def outcome(draw: st.DrawFn, event: ev.ActivityScheduled) -> ev.InputEvent:
    if draw(st.integers(0, 7)) == 0:
        return ev.ActivityFailed(command=event.command, failure=Failure.of(CardDeclined("drawn")))
    return completed(event.command, event.command)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_every_history_replays(ran: Run) -> None:
    ran.machine.dispose()
    assert_replays(ran, most_cuts=12)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_no_history_cancels_or_ends_what_is_not_open(ran: Run) -> None:
    open_commands: dict[int, ev.Event] = {}
    for event in ran.events:
        match event:
            case ev.ActivityScheduled() | ev.TimerStarted() | ev.ChildScheduled():
                assert event.command not in open_commands
                open_commands[event.command] = event
            case ev.ActivityCancelled() | ev.TimerCancelled() | ev.ResultEvent():
                del open_commands[event.command]
    ran.machine.dispose()
    assert sorted(open_commands) == [event.command for event in ran.open()]
    assert [event for event in ran.events if isinstance(event, ev.ClosingEvent)] == (
        [ran.closing] if ran.closing else []
    )

"""Workflows and runtimes that Hypothesis draws.

A workflow is a tree of statements, which one generic workflow interprets. The runtime is drawn too: in which order
things finish, which activities and children fail, how events are batched, when messages and a cancellation come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from django_workflows import (
    Await,
    Case,
    Channel,
    ChildHandle,
    Default,
    InstanceAlreadyExists,
    InstanceNotFound,
    Receive,
    RetryPolicy,
    Send,
    Signal,
    WorkflowCancelled,
    WorkflowClass,
    workflow,
    workflow_of,
)
from django_workflows.engine import events as ev
from django_workflows.failures import Failure

from .activities import CardDeclined, clean_up, echo
from .harness import Run, completed, encoded, signal

message = Signal("message", int)

Tree = list[Any]  # [kind, argument or children...]: JSON, as an instance's input is


@dataclass
class State:
    """What the statements of one execution share."""

    tasks: list[asyncio.Future[Any]] = field(default_factory=list)
    children: list[ChildHandle[int]] = field(default_factory=list)
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


@workflow(name="generated.interpreter")
class Interpreter(WorkflowClass):
    """Executes statements, and more of them that signals and updates bring."""

    def __init__(self) -> None:
        self.state = State()

    async def run(self, trees: list[Tree]) -> int:
        for tree in trees:
            await execute(self.state, tree)
        return self.state.counter

    @workflow.signal
    async def do(self, tree: Tree) -> None:
        await execute(self.state, tree)

    @workflow.update
    async def ask(self, tree: Tree) -> int:
        await execute(self.state, tree)
        return self.state.counter

    @ask.validator
    def check(self, tree: Tree) -> None:
        if self.state.counter > 20:
            raise ValueError("too busy")

    @workflow.query
    def counter(self) -> int:
        return self.state.counter


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


@workflow(name="generated.child")
async def child(number: int) -> int:
    return number


@statement
async def run_child(state: State, arguments: list[Any]) -> None:
    """Await a child; the text says what its parent_close is, and whether it has a chosen id."""
    policy, _, instance_id = arguments[0].partition(" ")
    state.counter += await child.using(parent_close=policy, instance_id=instance_id or None)(1)


@statement
async def start_child(state: State, arguments: list[Any]) -> None:
    policy, _, instance_id = arguments[0].partition(" ")
    state.children.append(child.using(parent_close=policy, instance_id=instance_id or None).start_child(2))
    state.tasks.append(state.children[-1].task)


@statement
async def join_child(state: State, arguments: list[Any]) -> None:
    if state.children:
        state.counter += await state.children.pop(0)


@statement
async def cancel_child(state: State, arguments: list[Any]) -> None:
    if state.children:
        state.children[-1].cancel()


@statement
async def signal_child(state: State, arguments: list[Any]) -> None:
    if state.children:
        await state.children[-1].signal(message, 1)


@statement
async def send(state: State, arguments: list[Any]) -> None:
    other = workflow.handle("another")
    await (other.cancel("drawn") if arguments[0] == 0 else other.signal(message, arguments[0]))


@statement
async def patch(state: State, arguments: list[Any]) -> None:
    if workflow.patched(f"patch {arguments[0]}"):
        await echo("patched")


@statement
async def set_attributes(state: State, arguments: list[Any]) -> None:
    workflow.set_attributes(counter=state.counter, length=workflow.info().history_length)


@statement
async def continue_as_new(state: State, arguments: list[Any]) -> None:
    workflow.continue_as_new([["activity", 1]])


# What is drawn

numbers = st.integers(0, 4)
CHILDREN = ["cancel", "cancel", "terminate", "abandon", "cancel chosen", "terminate chosen", "abandon chosen"]
leaves = st.one_of(
    st.tuples(
        st.sampled_from([
            "activity", "activity", "timer", "condition", "cancel", "put", "fail", "channel_send", "channel_receive",
            "channel_close", "send", "patch",
        ]),
        numbers,
    ),
    st.tuples(st.sampled_from(["run_child", "start_child"]), st.sampled_from(CHILDREN)),
    st.tuples(
        st.sampled_from([
            "receive", "receive_nowait", "side_effect", "broken_side_effect", "join", "locked", "get", "set", "wait",
            "call_soon", "join_child", "cancel_child", "signal_child", "set_attributes", "continue_as_new",
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
    retry = RetryPolicy(max_attempts=2) if draw(st.booleans()) else None
    ran = Run(workflow_of(Interpreter).using(retry=retry), draw(programs), signals=signals)
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
    """Draw what comes in together: outcomes of open commands in any order, due timers, a message now and then."""
    work = [event for event in ran.open() if not isinstance(event, ev.TimerStarted)]
    chosen = draw(st.permutations(work))[: draw(st.integers(0, 3))]
    inputs: list[ev.InputEvent] = [outcome(draw, ran, event) for event in chosen]
    if draw(st.booleans()):
        inputs.insert(draw(st.integers(0, len(inputs))), draw_message(draw, ran))
    timer = ran.next_timer()
    if timer is not None and (not inputs or draw(st.booleans())):
        ran.now = max(ran.now, timer.fire_at)
        due = [event for event in ran.open() if isinstance(event, ev.TimerStarted) and event.fire_at <= ran.now]
        inputs += [
            ev.TimerFired(event.command) for event in sorted(due, key=lambda event: (event.fire_at, event.command))
        ]
    if not inputs and work:
        inputs.append(outcome(draw, ran, work[0]))
    return inputs


def draw_message(draw: st.DrawFn, ran: Run) -> ev.InputEvent:
    """Draw a signal that is received, one that a handler takes, or an update."""
    match draw(st.integers(0, 3)):
        case 0:
            return signal("do", draw(trees))
        case 1:
            return ev.UpdateRequested(f"update {len(ran.history)}", "ask", encoded([[draw(trees)], {}]))
    return signal("message", draw(st.sampled_from([1, 2, "wrong"])))


def outcome(draw: st.DrawFn, ran: Run, event: ev.CommandEvent) -> ev.InputEvent:
    """Draw how something ends that the workflow has started."""
    command, fails = event.command, draw(st.integers(0, 7)) == 0
    if isinstance(event, ev.MessageCommand):
        refused = ev.MessageRefused(command=command, failure=Failure.of(InstanceNotFound("drawn")))
        return refused if fails else ev.MessageDelivered(command)
    if isinstance(event, ev.ChildScheduled):
        return child_outcome(draw, ran, event, fails=fails)
    if fails:
        return ev.ActivityFailed(command=command, failure=Failure.of(CardDeclined("drawn")))
    return completed(command, command)


def child_outcome(draw: st.DrawFn, ran: Run, event: ev.ChildScheduled, *, fails: bool) -> ev.InputEvent:
    command = event.command
    said = {type(other) for other in ran.events if getattr(other, "command", None) == command}
    if event.chosen_id and ev.ChildStarted not in said:
        taken = ev.ChildFailed(command=command, failure=Failure.of(InstanceAlreadyExists("drawn")))
        return taken if fails else ev.ChildStarted(command)
    if ev.ChildCancelRequested in said and draw(st.booleans()):
        return ev.ChildFailed(command=command, failure=Failure.of(WorkflowCancelled("drawn")))
    heard = ev.ChildCancelRequested in said and draw(st.booleans())
    if fails:
        return ev.ChildFailed(command=command, failure=Failure.of(CardDeclined("drawn")), cancel_requested=heard)
    return ev.ChildCompleted(command, encoded(command), heard)

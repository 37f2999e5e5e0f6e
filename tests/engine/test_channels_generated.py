"""Whatever tasks do with channels, and whenever they are cancelled: no value is lost, doubled or out of order.

Each agent is a task that goes through drawn operations on shared channels. When all agents wait, nobody may wait for
something that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_workflows import Await, Case, Channel, ChannelClosed, Default, Receive, Send, workflow

from .harness import Run, assert_replays

Value = tuple[int, int]  # number of the agent, number of the value: each is sent once at most
Operation = tuple[Any, ...]


@dataclass
class Account:
    """What became of the values of one channel."""

    sent: list[Value] = field(default_factory=list)
    not_sent: list[Value] = field(default_factory=list)
    unclear: list[Value] = field(default_factory=list)  # the sender was cancelled, so it never knew
    received: list[Value] = field(default_factory=list)

    def check(self, left: list[Value]) -> None:
        arrived = self.received + left
        assert len(set(arrived)) == len(arrived), "doubled"
        assert set(self.sent) <= set(arrived), "lost"
        assert set(arrived) <= {*self.sent, *self.unclear}, "not sent, but received"
        for agent in {agent for agent, _ in arrived}:
            numbers = [number for sender, number in arrived if sender == agent]
            assert numbers == sorted(numbers), "out of order"


class Agents:
    def __init__(self, capacities: list[int], programs: list[list[Operation]]) -> None:
        self.channels: list[Channel[Value]] = [Channel(capacity) for capacity in capacities]
        self.accounts = [Account() for _ in capacities]
        self.programs = programs
        self.tasks: list[asyncio.Task[None]] = []
        self.values = [0] * len(programs)

    async def run(self) -> None:
        self.tasks = [asyncio.create_task(self.agent(number)) for number in range(len(self.programs))]
        await workflow.sleep(1)  # fires when all of them wait
        for channel in self.channels:
            check_nobody_waits_in_vain(channel)
        while running := [task for task in self.tasks if not task.done()]:  # some go on when they are cancelled
            for task in running:
                task.cancel()
            await workflow.sleep(1)
        ends = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert [end for end in ends if end is not None and not isinstance(end, asyncio.CancelledError)] == []
        for channel, account in zip(self.channels, self.accounts, strict=True):
            assert (len(channel._receivers), len(channel._senders), channel._promised) == (0, 0, 0)
            account.check(list(channel._values))

    async def agent(self, number: int) -> None:
        for operation in self.programs[number]:
            try:
                await getattr(self, operation[0])(number, *operation[1:])
            except ChannelClosed:
                pass
            except asyncio.CancelledError:
                if operation[-1] == "ends":
                    return

    def next_value(self, agent: int) -> Value:
        self.values[agent] += 1
        return agent, self.values[agent]

    # What an agent does

    async def pause(self, agent: int, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    async def cancel(self, agent: int, other: int) -> None:
        self.tasks[other % len(self.tasks)].cancel()

    async def close(self, agent: int, index: int) -> None:
        self.channel(index).close()

    async def receive(self, agent: int, index: int, _: str = "") -> None:
        self.account(index).received.append(await self.channel(index).receive())

    async def iterate(self, agent: int, index: int) -> None:
        async for value in self.channel(index):
            self.account(index).received.append(value)

    async def receive_nowait(self, agent: int, index: int) -> None:
        with contextlib.suppress(asyncio.QueueEmpty):
            self.account(index).received.append(self.channel(index).receive_nowait())

    async def send(self, agent: int, index: int, _: str = "") -> None:
        value = self.next_value(agent)
        await self.follow(self.account(index), value, self.channel(index).send(value))

    async def send_nowait(self, agent: int, index: int) -> None:
        value, account = self.next_value(agent), self.account(index)
        try:
            self.channel(index).send_nowait(value)
        except (asyncio.QueueFull, ChannelClosed):
            account.not_sent.append(value)
        else:
            account.sent.append(value)

    async def select(self, agent: int, *drawn: tuple[str, int]) -> None:
        cases = [self.case(agent, kind, index) for kind, index in drawn]
        chosen: Case[Any] | None = None
        try:
            chosen = await workflow.select(*cases)
        finally:
            for case, (_, index) in zip(cases, drawn, strict=True):
                self.note(case, self.account(index), chosen)

    def note(self, case: Case[Any], account: Account, chosen: Case[Any] | None) -> None:
        match case:
            case Await():
                case.future.cancel()
            case Send() if chosen is None:
                account.unclear.append(case.value)
            case Send():
                happened = case is chosen and not closed(case)
                (account.sent if happened else account.not_sent).append(case.value)
            case Receive() if case is chosen and not closed(case):
                account.received.append(case.result())

    def case(self, agent: int, kind: str, index: int) -> Case[Any]:
        match kind:
            case "send":
                return Send(self.channel(index), self.next_value(agent))
            case "receive":
                return Receive(self.channel(index))
            case "await":
                return Await(self.pause(agent, index))
        return Default()

    async def follow(self, account: Account, value: Value, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except asyncio.CancelledError:
            account.unclear.append(value)
            raise
        except ChannelClosed:
            account.not_sent.append(value)
        else:
            account.sent.append(value)

    def channel(self, index: int) -> Channel[Value]:
        return self.channels[index % len(self.channels)]

    def account(self, index: int) -> Account:
        return self.accounts[index % len(self.accounts)]


def closed(case: Case[Any]) -> bool:
    try:
        case.result()
    except ChannelClosed:
        return True
    return False


def check_nobody_waits_in_vain(channel: Channel[Value]) -> None:
    """All tasks wait: then there is nothing for a receiver, no room for a sender, and no pair that could meet."""
    assert channel._promised == 0
    assert not channel.closed or not (channel._receivers or channel._senders)
    assert not channel._receivers or len(channel) == 0
    assert not channel._senders or len(channel) >= channel.capacity
    senders, receivers = ({selection for selection, _ in side} for side in (channel._senders, channel._receivers))
    assert not senders or not receivers or (senders == receivers and len(senders) == 1)


async def run_agents(capacities: list[int], programs: list[list[Operation]]) -> None:
    await Agents(capacities, programs).run()


indexes = st.integers(0, 2)
endings = st.sampled_from(["ends", "goes on"])
operations = st.one_of(
    st.tuples(st.sampled_from(["send", "receive"]), indexes, endings),
    st.tuples(st.sampled_from(["send_nowait", "receive_nowait", "pause", "iterate"]), indexes),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.lists(
        st.tuples(st.sampled_from(["send", "send", "receive", "receive", "await", "default"]), indexes),
        min_size=1,
        max_size=4,
    ).map(lambda cases: ("select", *cases)),
)
agents = st.lists(st.lists(operations, max_size=8), min_size=1, max_size=6)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 2), min_size=1, max_size=3), agents, st.lists(st.tuples(indexes, indexes), max_size=2))
def test_no_value_is_lost_doubled_or_out_of_order(
    capacities: list[int], programs: list[list[Operation]], closes: list[tuple[int, int]]
) -> None:
    programs = [*programs, *[[("pause", pause), ("close", index)] for pause, index in closes]]
    ran = Run(run_agents, capacities, programs).finish()
    assert ran.result is None
    assert_replays(ran)

"""Building machines from what is stored, and stepping them; every error ends in a reason to block, never in nothing."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django_workflows.conf import get_settings
from django_workflows.engine.events import (
    ActivityCompleted,
    ActivityFailed,
    ChildScheduled,
    InputEvent,
    SignalWithStart,
    UpdateRequested,
    decode_event,
)
from django_workflows.engine.steps import Step
from django_workflows.exceptions import PayloadError, UpdateNotAnswered, WorkflowsError
from django_workflows.failures import Failure
from django_workflows.replayer import history_of, new_machine
from django_workflows.store.claims import INBOX_LIMIT
from django_workflows.store.work import ChildOrder, InboxRow, InstanceStep, LoadedInstance, OpenChain

from .budget import rest_of_blocked
from .guards import StepWatch
from .held import Held, Input, PendingOrder, StickyCache

logger = logging.getLogger("django_workflows.worker")

_MOST_INPUTS = 500  # in one step
_BY_TOKEN = (ActivityCompleted, ActivityFailed)  # what a token completes


class CrashLimitReached(WorkflowsError):
    """An instance whose last claims never came back is set aside."""


def build(loaded: LoadedInstance, watch: StepWatch) -> Held:
    """Return the loaded instance with a machine that has replayed its history and the inbox waiting.

    Raises whatever keeps it from running: UnknownWorkflowError, PayloadError, NondeterminismError and the rest.
    """
    chain = loaded.chain
    limit = get_settings().crash_limit
    if chain.crashes > limit:
        raise CrashLimitReached(
            f"the last {chain.crashes - 1} claims of this instance ended with their worker (CRASH_LIMIT is {limit}); "
            "look into the workers' logs for what it does to them"
        )
    machine = new_machine(loaded.execution)
    history = history_of(loaded.execution)
    # One more is there if the instance has just been terminated; whoever goes on regardless cannot store a step.
    if len(history) < chain.history_length:
        raise PayloadError(f"expected a history of {chain.history_length} events, found one of {len(history)}")
    watch.call(f"replay of {chain.info.workflow} {chain.info.instance_id!r}", lambda: machine.replay(history))
    held = Held(chain, machine)
    take_inbox(held, loaded.inbox)
    held.has_more = len(loaded.inbox) >= INBOX_LIMIT
    return held


def take_inbox(held: Held, rows: list[InboxRow]) -> None:
    """Offer inbox rows to a held instance; raises PayloadError for one that cannot be decoded."""
    # The start of a continued execution is younger than signals that arrived during the last step of the one before.
    for row in sorted(rows, key=lambda row: (row.type != "InstanceStarted", row.id)):
        if row.id in held.seen or row.id in held.orders:
            continue
        is_order = row.type == ChildScheduled.__name__
        if row.instance is not None and row.instance != held.chain.instance and not is_order:
            held.seen.add(row.id)
            held.inputs.append(Input(_stale(row), inbox=row.id))
            continue
        match decode_event(row.type, row.data):
            case ChildScheduled() as order if row.instance is not None:
                held.orders[row.id] = PendingOrder(ChildOrder(row.id, row.instance, order))
            case SignalWithStart() as message:
                held.offer_inbox(row.id, message.signal)
            case InputEvent() as event:
                held.offer_inbox(row.id, event)
            case _:
                raise PayloadError(f"expected an input event in inbox row {row.id}, found {row.type}")


class _Stale(InputEvent, frozen=True):
    """Stands for a row addressed to an earlier execution: consumed without an effect, an update rejected."""

    update_id: str = ""


def _stale(row: InboxRow) -> _Stale:
    if row.type != "UpdateRequested":
        return _Stale()
    update = decode_event(row.type, row.data)
    assert isinstance(update, UpdateRequested)
    return _Stale(update.update_id)


def _reject(stale: _Stale) -> tuple[str, Failure]:
    return stale.update_id, Failure.of(
        UpdateNotAnswered("the execution to which the update was addressed had ended before it read it")
    )


def step(held: Held, now: datetime, watch: StepWatch) -> InstanceStep:
    """Step a held instance with the inputs that wait for it, and return what is to be committed."""
    inputs = held.inputs[:_MOST_INPUTS]
    recorded, used = _step_machine(held, inputs, now, watch)
    held.stepped, held.inputs = inputs[:used], held.inputs[used:]
    _warn_of_length(held.chain, len(recorded.events))
    assert held.machine is not None
    return InstanceStep(
        held.chain,
        recorded,
        consumed=[entry.inbox for entry in held.stepped if entry.inbox is not None],
        finished=[entry.task.key.command for entry in held.stepped if entry.task is not None],
        deferred=[e.event.command for e in held.stepped if isinstance(e.event, _BY_TOKEN) and e.event.deferred],
        abandoned=[] if recorded.closing is None else list(held.machine.open_commands()),
    )


def _step_machine(held: Held, inputs: list[Input], now: datetime, watch: StepWatch) -> tuple[Step, int]:
    """Return what the machine recorded, and how many of the inputs it used up."""
    info, machine = held.chain.info, held.machine
    live = [entry for entry in inputs if not isinstance(entry.event, _Stale)]
    assert machine is not None
    events = [entry.event for entry in live]
    recorded = watch.call(f"{info.workflow} {info.instance_id!r}", lambda: machine.step(events, now))
    used = len(inputs)
    if recorded.consumed < len(live):
        first_left = live[recorded.consumed]
        used = next(place for place, entry in enumerate(inputs) if entry is first_left)
    stale = [entry.event for entry in inputs[:used] if isinstance(entry.event, _Stale)]
    recorded.rejected += [_reject(event) for event in stale if event.update_id]
    return recorded, used


def _warn_of_length(chain: OpenChain, added: int) -> None:
    settings = get_settings()
    if chain.history_length < settings.history_warning <= chain.history_length + added:
        logger.warning(
            "%s %r has a history of %s events and fails at %s (HISTORY_LIMIT); let it continue as new, see "
            "info().continue_as_new_suggested",
            chain.info.workflow, chain.info.instance_id, chain.history_length + added, settings.history_limit,
        )  # fmt: skip


def blocked(chain: OpenChain, error: BaseException, now: datetime) -> InstanceStep:
    """Return the step that sets an instance aside until its next try."""
    retry_at = now + timedelta(seconds=rest_of_blocked(chain.blocks))
    return InstanceStep(chain, Step(time=now), blocked=Failure.of(error), retry_at=retry_at)


def drop(held: Held, cache: StickyCache, watch: StepWatch) -> None:
    """Forget a held instance; its clean-up code runs within the step limit, for what happens in it decides nothing."""
    info, machine = held.chain.info, held.machine
    cache.remove(held)  # not within the limit: what stayed there could be claimed, and never loaded again
    if machine is None:
        return
    try:
        watch.call(f"{info.workflow} {info.instance_id!r}, leaving memory", machine.dispose)
    except Exception as error:
        logger.error("%s", error)

"""Workflow classes: what can be declared, what is refused, and how objects are made."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from django_workflows import RegistrationError, WorkflowClass, workflow, workflow_of

from .activities import echo
from .harness import Run, assert_replays, run


@workflow
class Greeter(WorkflowClass):
    """Says hello."""

    async def run(self, name: str) -> str:
        return f"hello {await echo(name)}"


def test_run_is_the_workflow() -> None:
    assert run(Greeter, "Ada").result == "hello Ada"
    assert workflow_of(Greeter).name == "engine.Greeter"


def test_a_class_needs_no_base_and_gets_its_methods() -> None:
    @workflow(name="classes.plain", version="3", aliases=["classes.old"])
    class Plain:
        async def run(self) -> int:
            return 1

    assert run(Plain).result == 1
    definition = workflow_of(Plain).definition
    assert (definition.name, definition.version, definition.aliases) == ("classes.plain", "3", ("classes.old",))
    plain: Any = Plain
    assert plain.handle("an id").instance_id == "an id"


def test_what_is_no_workflow_says_so() -> None:
    class Forgotten(WorkflowClass):
        async def run(self) -> None: ...

    with pytest.raises(RegistrationError, match=r"expected a class under @workflow, found .*Forgotten"):
        workflow_of(Forgotten)


def test_a_subclass_is_another_workflow() -> None:
    @workflow
    class Base(WorkflowClass):
        greeting = "hello"

        async def run(self, name: str) -> str:
            return f"{self.greeting} {name}"

    @workflow
    class Polite(Base):
        greeting = "good day"

    class Undecorated(Base): ...

    assert (run(Base, "Ada").result, run(Polite, "Ada").result) == ("hello Ada", "good day Ada")
    assert workflow_of(Polite).name != workflow_of(Base).name
    with pytest.raises(RegistrationError, match="Undecorated"):
        workflow_of(Undecorated)


# Objects


def test_init_may_take_the_arguments_of_run() -> None:
    @workflow
    class Counter:
        def __init__(self, first: int, step: int = 1) -> None:
            self.values = [first, step]
            self.lock = asyncio.Lock()

        async def run(self, first: int, step: int = 1) -> list[int]:
            async with self.lock:
                return [*self.values, first, step]

    assert run(Counter, 5, 2).result == [5, 2, 5, 2]


def test_init_without_arguments() -> None:
    @workflow
    class Counter:
        def __init__(self) -> None:
            self.number = workflow.random().randrange(1000)

        async def run(self, first: int) -> bool:
            return self.number >= 0

    assert run(Counter, 5).result is True


def test_a_dataclass_with_defaults_holds_the_state() -> None:
    @workflow
    @dataclass
    class Cart(WorkflowClass):
        items: list[str] = field(default_factory=list)

        async def run(self, first: str) -> list[str]:
            self.items.append(first)
            return self.items

    assert run(Cart, "book").result == ["book"]
    assert run(Cart, "pen").result == ["pen"], "each instance has its own"


def test_other_parameters_of_init_are_refused() -> None:
    with pytest.raises(
        RegistrationError, match=r"__init__ to need no arguments, or to have the parameters of run\(.*a"
    ):

        @workflow
        class Wrong:
            def __init__(self, b: int) -> None: ...

            async def run(self, a: int) -> None: ...


def test_an_init_that_raises_fails_the_instance() -> None:
    @workflow
    class Broken:
        def __init__(self) -> None:
            raise LookupError("no such shop")

        async def run(self) -> None: ...

    ran = run(Broken)
    assert (ran.failure.type, ran.failure.message) == ("builtins.LookupError", "no such shop")
    assert "in __init__" in ran.failure.traceback


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, type("Odd", (BaseException,), {})])
def test_an_init_that_raises_anything_else_fails_the_instance_too(error: type[BaseException]) -> None:
    class Broken:
        def __init__(self) -> None:
            raise error("no")

        async def run(self) -> None: ...

    Broken.__qualname__ = f"Broken{error.__name__}"
    assert run(workflow(Broken)).failure.message == "no"


def test_an_init_may_decide() -> None:
    @workflow
    class Decisive:
        def __init__(self) -> None:
            self.task = asyncio.create_task(self.work())

        async def work(self) -> Any:
            return await echo(3)

        async def run(self) -> Any:
            return await self.task

    assert run(Decisive).result == 3


# What is refused


def test_a_class_without_run() -> None:
    with pytest.raises(RegistrationError, match="async def run"):

        @workflow
        class Empty: ...


def test_a_run_that_is_not_async() -> None:
    with pytest.raises(RegistrationError, match="async"):

        @workflow
        class Wrong:
            def run(self) -> None: ...


@pytest.mark.parametrize("name", ["start", "astart", "using", "handle", "start_child"])
@pytest.mark.parametrize("base", [WorkflowClass, object])
@pytest.mark.parametrize("decorate", [workflow.signal, workflow.query, workflow.update, lambda function: function])
def test_a_method_with_the_name_of_one_that_workflow_classes_need(name: str, base: type, decorate: Any) -> None:
    def method(self: object) -> None: ...

    async def run_(self: object) -> None: ...

    method.__name__ = name
    cls = type("Shadowing", (base,), {name: decorate(method), "run": run_})
    with pytest.raises(RegistrationError, match=f"Shadowing.{name}: expected another name"):
        workflow(cls)


def test_such_a_name_can_be_given_to_a_handler_outside() -> None:
    @workflow
    class Machine(WorkflowClass):
        def __init__(self) -> None:
            self.started = False

        @workflow.signal(name="start")
        def on_start(self) -> None:
            self.started = True

        async def run(self) -> bool:
            await workflow.wait_condition(lambda: self.started)
            return self.started

    ran = Run(Machine)
    ran.signal("start")
    assert ran.result is True
    assert_replays(ran)


def test_two_handlers_of_one_name() -> None:
    with pytest.raises(RegistrationError, match=r"expected one handler of signal 'stop', found first and second"):

        @workflow
        class Wrong:
            @workflow.signal(name="stop")
            def first(self) -> None: ...

            @workflow.signal(name="stop")
            def second(self) -> None: ...

            async def run(self) -> None: ...


def test_handlers_of_different_kinds_may_share_a_name() -> None:
    @workflow
    class Shared:
        def __init__(self) -> None:
            self.total = 0

        @workflow.signal(name="total")
        def add(self, number: int) -> None:
            self.total += number

        @workflow.query(name="total")
        def read(self) -> int:
            return self.total

        async def run(self) -> None:
            await workflow.wait_condition(lambda: self.total > 9)

    ran = Run(Shared)
    ran.signal("total", 4)
    assert ran.query("total") == 4


@pytest.mark.parametrize("kind", ["query", "validator"])
def test_an_async_query_or_validator(kind: str) -> None:
    async def wait(self: object) -> None: ...

    def update(self: object) -> None: ...

    with pytest.raises(RegistrationError, match=rf"expected a plain function as a {kind}, found an async one"):
        if kind == "query":
            workflow.query(wait)
        else:
            workflow.update(update).validator(wait)  # type: ignore[arg-type]


def test_a_validator_with_other_parameters_than_its_update() -> None:
    def update(self: object, sku: str) -> None: ...

    def check(self: object, name: str) -> None: ...

    with pytest.raises(RegistrationError, match=r"parameters of its update \(sku: .*, found \(name: "):
        workflow.update(update).validator(check)


def test_two_validators_of_one_update() -> None:
    @workflow.update
    def update(self: object) -> None: ...

    @update.validator
    def check(self: object) -> None: ...

    with pytest.raises(RegistrationError, match="one validator of the update"):

        @update.validator
        def check_again(self: object) -> None: ...


def test_a_validator_that_would_replace_its_update() -> None:
    with pytest.raises(RegistrationError, match="a name of its own"):

        class Wrong:
            @workflow.update
            def add(self, sku: str) -> None: ...

            @add.validator
            def add(self, sku: str) -> None: ...


def _two(self: object, a: int, b: int) -> None: ...
def _keyword(self: object, *, a: int) -> None: ...
def _many(self: object, *a: int) -> None: ...


@pytest.mark.parametrize("function", [_two, _keyword, _many])
def test_a_signal_handler_that_does_not_take_one_value(function: Any) -> None:
    with pytest.raises(RegistrationError, match="one parameter or none"):
        workflow.signal(function)


def _default(self: object, why: str = "no reason") -> None: ...
def _optional(self: object, why: str | None = None) -> None: ...


def test_a_signal_handler_with_a_default_that_would_never_be_used() -> None:
    with pytest.raises(RegistrationError, match="expected no default"):
        workflow.signal(_default)
    assert workflow.signal(_optional).name == "_optional"


def _generate(self: object) -> Any:
    yield 1


async def _agenerate(self: object) -> Any:
    yield 1


@pytest.mark.parametrize("function", [_generate, _agenerate, staticmethod(_two), property(_two), 3])
@pytest.mark.parametrize("decorate", [workflow.signal, workflow.query, workflow.update])
def test_what_is_not_a_method(decorate: Any, function: Any) -> None:
    with pytest.raises(RegistrationError, match="expected a method, plain or async, found"):
        decorate(function)


# Inheritance


class Stoppable:
    """A mixin that is no workflow itself."""

    stopped = ""

    @workflow.signal
    def stop(self, why: str) -> None:
        self.stopped = why

    @workflow.query
    def state(self) -> str:
        return self.stopped or "running"

    @workflow.update
    def rename(self, name: str) -> str:
        return name

    @rename.validator
    def check_name(self, name: str) -> None:
        if not name:
            raise ValueError("a name is needed")


@workflow
class Machine(Stoppable):
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.stopped)
        return self.stopped


@workflow
class Loud(Machine):
    @workflow.signal
    async def stop(self, why: str) -> None:
        self.stopped = await echo(why.upper())

    @workflow.query
    def state(self) -> str:
        return str(super().state().upper())

    def check_name(self, name: str) -> None:
        if len(name) > 3:
            raise ValueError("too long")


def test_handlers_are_inherited() -> None:
    ran = Run(Machine)
    assert ran.query("state") == "running"
    assert ran.answer(ran.update("rename", "Ada")) == "Ada"
    ran.signal("stop", "enough")
    assert ran.result == "enough"
    assert_replays(ran)


def test_handlers_are_overridden() -> None:
    ran = Run(Loud)
    assert ran.query("state") == "RUNNING"
    ran.signal("stop", "enough")
    ran.finish()
    assert ran.result == "ENOUGH"
    assert_replays(ran)


def test_validators_are_overridden() -> None:
    loud, machine = Run(Loud), Run(Machine)
    assert loud.answer(loud.update("rename", "Augusta")) == ("rejected", "ValueError")
    assert loud.answer(loud.update("rename", "")) == ""
    assert machine.answer(machine.update("rename", "")) == ("rejected", "ValueError")


def test_a_method_that_hides_a_handler_without_a_decorator() -> None:
    with pytest.raises(RegistrationError, match=r"Quiet\.stop: expected a decorator, as the handler of a base has"):

        @workflow
        class Quiet(Machine):
            def stop(self, why: str) -> None: ...


def test_two_classes_of_one_name_that_inherit_run() -> None:
    workflow(name="classes.twice")(type("One", (Machine,), {}))
    with pytest.raises(RegistrationError, match=r"two workflow definitions are named 'classes\.twice'"):
        workflow(name="classes.twice")(type("Two", (Machine,), {}))

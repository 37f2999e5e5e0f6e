"""Workflows as classes: `run` is the workflow, other methods handle signals, queries and updates."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar, Unpack

from django_workflows.exceptions import RegistrationError
from django_workflows.registry import WorkflowDefinition, workflows
from django_workflows.retries import RetryPolicy

from .children import ChildHandle
from .handlers import handlers_of
from .start_options import WorkflowCallOptions
from .workflow import Workflow

if TYPE_CHECKING:
    from django_workflows.client import WorkflowHandle

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_WORKFLOW = "_django_workflows_workflow"


class HasRun(Protocol[P, R_co]):
    """A class that can be a workflow."""

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class WorkflowClass:
    """What `@workflow` gives to a class; inherit from it, and type checkers know it too.

    Example:
        @workflow
        class Cart(WorkflowClass):
            async def run(self, customer_id: int) -> int: ...

        handle = Cart.using(instance_id="cart-17").start(17)
    """

    @classmethod
    def using(cls: type[HasRun[P, R]], **options: Unpack[WorkflowCallOptions]) -> Workflow[P, R]:
        """Return the workflow with options; see `Workflow.using`."""
        return workflow_of(cls).using(**options)

    @classmethod
    def start(cls: type[HasRun[P, R]], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Start an instance; see `Workflow.start`."""
        return workflow_of(cls).start(*args, **kwargs)

    @classmethod
    async def astart(cls: type[HasRun[P, R]], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Start an instance from async code."""
        return await workflow_of(cls).astart(*args, **kwargs)

    @classmethod
    def start_child(cls: type[HasRun[P, R]], *args: P.args, **kwargs: P.kwargs) -> ChildHandle[R]:
        """Start a child of the calling workflow; see `Workflow.start_child`."""
        return workflow_of(cls).start_child(*args, **kwargs)

    @classmethod
    def handle(cls: type[HasRun[P, R]], instance_id: str, execution_id: str | None = None) -> WorkflowHandle[R]:
        """Return a handle of an instance; see `Workflow.handle`."""
        return workflow_of(cls).handle(instance_id, execution_id)


def workflow_of(cls: type[HasRun[P, R]]) -> Workflow[P, R]:
    """Return the workflow that a decorated class is; raises RegistrationError for any other class."""
    found: Workflow[P, R] | None = vars(cls).get(_WORKFLOW)
    if found is None:
        raise RegistrationError(f"expected a class under @workflow, found {cls.__qualname__}; decorate it")
    return found


def register_class(
    cls: type, name: str | None, queue: str | None, version: str, aliases: Iterable[str], retry: RetryPolicy | None
) -> type:
    """Register a class as a workflow and give it the methods of WorkflowClass.

    Raises RegistrationError for a class without `run`, and for one that uses these names for something else.
    """
    run = getattr(cls, "run", None)
    if run is None:
        raise RegistrationError(
            f"expected a workflow class to have an `async def run`, found {cls.__qualname__} without"
        )
    methods = {key: method for key, method in vars(WorkflowClass).items() if isinstance(method, classmethod)}
    _check_names(cls, methods)
    definition = WorkflowDefinition(
        run, name, queue, version, aliases, retry, owner=cls, handlers=handlers_of(cls)
    )  # fmt: skip
    setattr(cls, _WORKFLOW, Workflow(workflows.add(definition)))
    for attribute, method in methods.items():
        setattr(cls, attribute, method)
    return cls


def _check_names(cls: type, methods: Mapping[str, object]) -> None:
    for name, method in methods.items():
        found = inspect.getattr_static(cls, name, method)
        if found is not method:
            raise RegistrationError(
                f"{cls.__qualname__}.{name}: expected another name, found one that workflow classes need themselves; "
                f"a handler can be called {name!r} outside by name={name!r}"
            )

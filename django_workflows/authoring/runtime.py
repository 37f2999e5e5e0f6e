"""The client that definitions call; the app binds it when Django is ready, since this layer knows no database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from django_workflows.exceptions import WorkflowsError

if TYPE_CHECKING:
    from .workflow import Workflow


class Client(Protocol):
    """What the methods of workflows and activities need that the application calls."""

    def start(self, workflow: Workflow[Any, Any], args: Any, kwargs: Any) -> Any: ...

    def start_many(self, workflow: Workflow[Any, Any], arguments: Any, instance_ids: Any) -> Any: ...

    def signal_with_start(
        self, workflow: Workflow[Any, Any], signal: Any, value: Any, args: Any, kwargs: Any
    ) -> Any: ...

    def update_with_start(self, workflow: Workflow[Any, Any], request: Any, args: Any, kwargs: Any) -> Any: ...
    def complete_activity(self, token: str, value: Any) -> None: ...

    def fail_activity(self, token: str, error: BaseException) -> None: ...

    def handle(self, instance_id: str, execution_id: str | None, workflow: Workflow[Any, Any] | None) -> Any: ...


_client: Client | None = None


def bind_client(client: Client) -> None:
    """Make `client` the one that all definitions use."""
    global _client
    _client = client


def get_client() -> Client:
    """Return the bound client; raises WorkflowsError before Django is set up."""
    if _client is None:
        raise WorkflowsError(
            "django_workflows is not ready: expected it in INSTALLED_APPS and django.setup() to have run"
        )
    return _client

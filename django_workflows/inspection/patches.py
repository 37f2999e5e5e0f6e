"""Which patches the open instances have, and which they lack."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from django.db.models import Count

from django_workflows import registry
from django_workflows.engine.events import PatchRecorded, decode_event
from django_workflows.exceptions import PayloadError
from django_workflows.models import HistoryEvent, OpenInstance, WorkflowInstance
from django_workflows.store.database import Database


class PatchUse(NamedTuple):
    """How many open instances of a workflow have a patch recorded, and how many have not."""

    workflow: str
    patch: str
    having: int
    lacking: int

    @property
    def old_path_needed(self) -> bool:
        """Whether some open instance may be on the old path: it lacks the patch, or has not come to it yet."""
        return self.lacking > 0


def uses_of_patches() -> list[PatchUse]:
    """Return the patches of open instances by workflow and name; those that none of them has are not known here."""
    alias = Database().alias
    instances = WorkflowInstance.objects.using(alias).open()
    total: Counter[str] = Counter()
    for name, count in instances.values_list("name").annotate(count=Count("pk")).order_by():
        total[_current_name(name)] += count
    opened = OpenInstance.objects.using(alias).values("instance_id")
    events = HistoryEvent.objects.using(alias).filter(type=PatchRecorded.__name__, instance_id__in=opened)
    recorded = {
        (instance, patch) for instance, data in events.values_list("instance_id", "data") for patch in _patch(data)
    }
    names = dict(instances.filter(pk__in={instance for instance, _ in recorded}).values_list("pk", "name"))
    having = Counter((_current_name(names[instance]), patch) for instance, patch in recorded if instance in names)
    return [
        PatchUse(workflow, patch, count, max(0, total[workflow] - count))
        for (workflow, patch), count in sorted(having.items())
    ]


def _current_name(name: str) -> str:
    definition = registry.workflows.get(name)
    return name if definition is None else definition.name


def _patch(data: str) -> list[str]:
    try:
        event = decode_event(PatchRecorded.__name__, data)
    except PayloadError:
        return []
    return [event.patch] if isinstance(event, PatchRecorded) else []

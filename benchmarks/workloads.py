"""The workloads that every system runs, and how they count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Workload:
    """Work that each system has a method for, named as the workload and called with its sizes."""

    name: str
    title: str
    sizes: tuple[str, ...]
    activities: Callable[[Parameters], int]  # how many activities (steps, tasks) that is
    warm_up: dict[str, int]

    def parameters(self, of: Parameters) -> dict[str, Any]:
        return {name: of[name] for name in self.sizes}


@dataclass(frozen=True)
class Tree:
    """The tree of go-workflows' benchmark: roots, `depth` levels of inner workflows, leaves with activities."""

    runs: int
    depth: int
    fanout: int
    leaffanout: int
    activities: int
    resultsize: int

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"expected a tree with a depth of at least 1, found {self.depth}")

    @property
    def leaves_per_root(self) -> int:
        return int(self.fanout**self.depth) * self.leaffanout

    @property
    def instances_per_root(self) -> int:
        return 1 + sum(self.fanout**level for level in range(1, self.depth + 1)) + self.leaves_per_root

    @property
    def activities_per_root(self) -> int:
        return self.leaves_per_root * self.activities

    def width(self, level: int) -> int:
        """Return how many children a workflow of a level has: 0 is the root's, `depth` that of the innermost."""
        return self.fanout if level < self.depth else self.leaffanout


_TREE = ("runs", "depth", "fanout", "leaffanout", "activities", "resultsize")

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "sequential", "{instances} workflows x {steps} sequential no-op steps", ("instances", "steps"),
            lambda sizes: sizes["instances"] * sizes["steps"], {"instances": 2, "steps": 2},
        ),
        Workload(
            "independent", "{tasks} independent no-op tasks", ("tasks",), lambda sizes: sizes["tasks"], {"tasks": 5}
        ),
        Workload(
            "fan_out", "1 workflow with {parallel} parallel no-op activities", ("parallel",),
            lambda sizes: sizes["parallel"], {"parallel": 5},
        ),
        Workload(
            "tree", "{runs} trees of {instances_per_root} workflows and {activities_per_root} activities", _TREE,
            lambda sizes: sizes["runs"] * Tree(**{name: sizes[name] for name in _TREE}).activities_per_root,
            dict(zip(_TREE, (1, 1, 1, 1, 1, 10), strict=True)),
        ),
    )
}  # fmt: skip


def title(workload: Workload, parameters: Parameters) -> str:
    """Return what was done, with its numbers."""
    derived: dict[str, int] = {}
    if workload.name == "tree":
        tree = Tree(**workload.parameters(parameters))
        derived = {"instances_per_root": tree.instances_per_root, "activities_per_root": tree.activities_per_root}
    numbers = {name: value for name, value in {**parameters, **derived}.items() if isinstance(value, int)}
    return workload.title.format(**{name: f"{value:,}" for name, value in numbers.items()})

"""How much work the benchmarks do: one dataclass, and a command-line option for each of its fields."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field, fields, replace
from typing import Any


def _size(default: Any, small: Any, help: str) -> Any:
    return field(default=default, metadata={"small": small, "help": help})


@dataclass(frozen=True)
class Sizes:
    """Sizes of workloads and numbers of repetitions; `small()` is for trying out whether all works."""

    threads: int = _size(8, 4, "activity threads of each worker process of ours")
    pairs: int = _size(3, 1, "how often two or more systems, databases or set-ups take turns")
    # Workloads, see workloads.py; the last six are the flags of go-workflows' own benchmark
    instances: int = _size(500, 5, "sequential: workflows")
    steps: int = _size(10, 3, "sequential: steps of each workflow, one after the other")
    tasks: int = _size(5000, 20, "independent: tasks")
    parallel: int = _size(1000, 10, "fan-out: activities of the one workflow")
    runs: int = _size(20, 1, "tree: root workflows")
    depth: int = _size(2, 1, "tree: levels of inner workflows")
    fanout: int = _size(2, 2, "tree: children of roots and inner workflows")
    leaffanout: int = _size(2, 2, "tree: leaves of each innermost workflow")
    activities: int = _size(2, 2, "tree: parallel activities of each leaf")
    resultsize: int = _size(100, 100, "tree: characters of random text that each activity returns")
    # Latency
    samples: int = _size(60, 2, "latency: starts and signals, each on an idle worker")
    pause: float = _size(0.8, 0.05, "latency: seconds before each sample, for the worker to become idle")
    chained: int = _size(300, 5, "latency: activities of the one sequential workflow, and commits to compare with")
    flushes: tuple[int, ...] = _size((0, 1, 2, 5), (0, 1), "disks: milliseconds that each flush takes longer")
    # Scale
    closed: tuple[int, ...] = _size((1_000, 100_000, 1_000_000), (10, 30), "closed instances in the tables")
    sleepers: int = _size(100_000, 20, "sleeping instances in the tables")
    idle: float = _size(20.0, 0.3, "seconds for which an idle worker is watched")
    events: tuple[int, ...] = _size((100, 1_000, 10_000), (10, 20), "lengths of a history")
    processes: tuple[int, ...] = _size((1, 2, 4), (1,), "worker processes")
    sustained: float = _size(30.0, 0.3, "seconds of load beside one long open transaction")
    payloads: tuple[int, ...] = _size((1_000, 100_000), (100,), "characters of an activity's argument and result")
    payload_instances: int = _size(50, 2, "payloads: workflows of five activities")
    machines: tuple[int, ...] = _size((1_000, 10_000), (5, 10), "instances that a worker holds in memory")

    @classmethod
    def small(cls) -> Sizes:
        return cls(**{each.name: each.metadata["small"] for each in fields(cls)})

    def only(self, *names: str) -> dict[str, Any]:
        """Return some of the sizes as JSON has them: what a case depends on, and nothing else."""
        return {name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in names}


def add_options(parser: ArgumentParser) -> None:
    for each in fields(Sizes):
        default = each.default
        read: Any = _numbers if isinstance(default, tuple) else type(default)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        help = f"{each.metadata['help']} (default {shown})"
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=read, metavar="N", help=help)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def from_options(options: Namespace, base: Sizes) -> Sizes:
    given = {each.name: getattr(options, each.name) for each in fields(Sizes)}
    return replace(base, **{name: value for name, value in given.items() if value is not None})

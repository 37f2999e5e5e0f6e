"""The same work on us and on each peer, taking turns, so that the machine's noise hits both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import systems
from benchmarks.case import Case
from benchmarks.drive import drive
from benchmarks.figures import median
from benchmarks.sizes import Sizes
from benchmarks.workloads import WORKLOADS

NAME = "comparison"


def cases(sizes: Sizes) -> Iterator[Case]:
    for workload in WORKLOADS.values():
        for peer in systems.PEERS:
            parameters = {"workload": workload.name, "peer": peer, **sizes.only("pairs", "threads", *workload.sizes)}
            yield Case(NAME, f"{workload.name}/{peer}", "postgresql", 900, parameters)


def measure(case: Case) -> dict[str, Any]:
    """Measure with as many worker processes of ours as the peer has."""
    workload, peer = WORKLOADS[case.parameters["workload"]], case.parameters["peer"]
    system, threads = systems.load(peer), case.parameters["threads"]
    pairs = []
    for _ in range(case.parameters["pairs"]):
        ours = drive("ours", workload.name, case.parameters, threads=threads, processes=system.processes)
        pairs.append((ours, drive(peer, workload.name, case.parameters)))
    activities = workload.activities(case.parameters)
    return {
        "pairs": pairs,
        "processes": system.processes,
        "versions": system.versions(),
        "ours_rate": activities / median([ours for ours, _ in pairs]),
        "peer_rate": activities / median([theirs for _, theirs in pairs]),
        "ratios": [theirs / ours for ours, theirs in pairs],
    }

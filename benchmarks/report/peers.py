"""The comparison with peers, and with ourselves on other databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.case import Record
from benchmarks.figures import median
from benchmarks.workloads import WORKLOADS, title

from .markdown import NAMES, Section, table
from .plots import bars

Records = Mapping[str, Record]


def comparison(records: Records) -> Section:
    by_workload = _by_workload(records)
    peers = list(dict.fromkeys(peer for found in by_workload.values() for peer in found))
    rows, groups = [], []
    for name, found in by_workload.items():
        fewest = min(record["processes"] for record in found.values())
        ours = median([record["ours_rate"] for record in found.values() if record["processes"] == fewest])
        done = title(WORKLOADS[name], records[f"{name}/{next(iter(found))}"].parameters)
        rows.append([done, f"{ours:,.0f}", *(_cell(found.get(peer)) for peer in peers)])
        rates = [(NAMES[peer], found[peer]["peer_rate"]) for peer in peers if peer in found]
        groups.append((name.replace("_", " "), [(NAMES["ours"], ours), *rates]))
    head = ["work", NAMES["ours"], *(NAMES[peer] for peer in peers)]
    versions: dict[str, str] = {}
    for record in records.values():
        versions |= (record.figures or {})["versions"]
    text = (
        "### Beside peers\n\n"
        "Activities (steps, tasks) per second, and in bold how many times as fast ours was: the median of pairs that "
        "ran one after the other, with the lowest and the highest pair. All on PostgreSQL, Celery on Redis. One worker "
        "process each, but two of Celery's beside two of ours.\n\n"
        f"{table(head, rows)}\n\n"
        "![Activities per second beside peers](performance/peers.svg)\n\n"
        f"Versions: {', '.join(f'{package} {number}' for package, number in sorted(versions.items()))}."
    )
    return Section(text, {"peers": bars("Activities per second (logarithmic)", groups, logarithmic=True)})


def _by_workload(records: Records) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for workload in WORKLOADS:
        for name, record in records.items():
            if name.startswith(f"{workload}/"):
                found.setdefault(workload, {})[record.parameters["peer"]] = record.figures
    return found


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    ratios = figures["ratios"]
    ours = "" if figures["processes"] == 1 else f" to our {figures['ours_rate']:,.0f}"
    return f"{figures['peer_rate']:,.0f}{ours}, **{median(ratios):.1f}x** ({min(ratios):.1f} to {max(ratios):.1f})"


def vendors(records: Records) -> Section:
    names = [name for name in WORKLOADS if name in records]
    found = {name: dict((records[name].figures or {})["median"]) for name in names}
    columns = list(dict.fromkeys(vendor for rates in found.values() for vendor in rates))
    rows, groups = [], []
    for name, rates in found.items():
        rows.append([title(WORKLOADS[name], records[name].parameters), *(_beside(rates, vendor) for vendor in columns)])
        groups.append((name.replace("_", " "), [(NAMES[vendor], rate) for vendor, rate in rates.items()]))
    text = (
        "### On each database\n\n"
        "Activities per second of one worker process, the databases taking turns; in brackets the share of "
        f"PostgreSQL's.\n\n{table(['work', *(NAMES[vendor] for vendor in columns)], rows)}\n\n"
        "![Activities per second on each database](performance/databases.svg)"
    )
    return Section(text, {"databases": bars("Activities per second", groups)})


def _beside(rates: dict[str, float], vendor: str) -> str:
    """Return a pace, and its share of PostgreSQL's."""
    share = f" ({rates[vendor] / rates['postgresql']:.0%})" if vendor != "postgresql" and "postgresql" in rates else ""
    return f"{rates[vendor]:,.0f}{share}"

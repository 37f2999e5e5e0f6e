"""The targets, and whether they are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.case import Record
from benchmarks.figures import in_commits, median

from .markdown import NAMES, Section, count, table

Find = Callable[[str], Mapping[str, Record]]
Row = tuple[str, str, bool]


def targets(find: Find) -> Section:
    """Return a table of targets; `find` gives the records of a part."""
    rows = [row for rows in (_ratios, _latency, _closed, _sleepers, _history, _vendors) for row in rows(find)]
    cells = [[target, measured, "yes" if reached else "**no**"] for target, measured, reached in rows]
    return Section(f"### Targets\n\n{table(['target', 'measured', 'reached'], cells)}" if cells else "")


def _figures(find: Find, part: str) -> Iterator[tuple[Record, dict[str, Any]]]:
    for record in find(part).values():
        yield record, record.figures or {}


def _ratios(find: Find) -> Iterator[Row]:
    records = find("comparison")
    for peer, target in (("dbos", 15), ("celery", 8)):
        record = records.get(f"sequential/{peer}")
        if record is not None:
            ratio = median((record.figures or {})["ratios"])
            yield f"{target} times {NAMES[peer]}, sequential steps", f"{ratio:.1f} times", ratio >= target


def _latency(find: Find) -> Iterator[Row]:
    for record, found in _figures(find, "latency"):
        if record.parameters["wakeups"] != "polling":
            yield _chain(f"{NAMES[record.database]}, {record.parameters['wakeups'].replace('-', ' ')}", found)
    for record, found in _figures(find, "disks"):
        for delay, chain in found.items():
            if delay != "0":  # the one of this machine is above
                yield _chain(f"{NAMES[record.database]} on a disk that takes {delay} ms longer", chain)


def _chain(where: str, found: Mapping[str, Any]) -> Row:
    ratio = in_commits(found)
    return f"a sequential activity within 2 commits, {where}", f"{ratio:.1f}", ratio <= 2


def _closed(find: Find) -> Iterator[Row]:
    for record, found in _figures(find, "closed"):
        rates = list(found["median"].items())
        (low, first), (high, last) = rates[0], rates[-1]
        change = last / first - 1
        what = f"{count(high)} closed instances as {count(low)}, within 15 %, {NAMES[record.database]}"
        yield what, f"{change:+.0%}", change >= -0.15


def _sleepers(find: Find) -> Iterator[Row]:
    for record, found in _figures(find, "sleepers"):
        cpu, poll = found["with"]["cpu"], found["with"]["poll"]["p50"]
        what = f"{count(record.parameters['sleepers'])} sleepers under 1 % CPU, polls under 5 ms"
        yield f"{what}, {NAMES[record.database]}", f"{cpu:.2%}, {poll:.1f} ms", cpu < 0.01 and poll < 5


def _history(find: Find) -> Iterator[Row]:
    for record, found in _figures(find, "history"):
        events, longest = list(found.items())[-1]
        seconds = longest["load"] + longest["replay"]
        what = f"{count(events)} events read and replayed in 0.5 s, {NAMES[record.database]}"
        yield what, f"{seconds:.2f} s", seconds < 0.5
        growth = longest["append_last"] / longest["append_first"] if longest["append_first"] else 1.0
        what = f"the last tenth of them as quick as the first, {NAMES[record.database]}"
        yield what, f"{growth:.2f} times the time", growth < 1.2


def _vendors(find: Find) -> Iterator[Row]:
    for record, found in _figures(find, "vendors"):
        base = found["median"].get("postgresql")
        for vendor, rate in found["median"].items():
            if base and vendor != "postgresql":
                share = rate / base
                what = f"{NAMES[vendor]} at 60 % of PostgreSQL, {record.name.replace('_', ' ')}"
                yield what, f"{share:.0%}", share >= 0.6

"""What happens when there is more of something."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.case import Record

from .markdown import NAMES, Section, count, milliseconds, table
from .plots import bars

Records = Mapping[str, Record]


def closed(records: Records) -> Section:
    rows, groups, head = [], [], ["database"]
    for record in records.values():
        rates = (record.figures or {})["median"]
        paces = list(rates.values())
        head = ["database", *(count(number) for number in rates), "last to first"]
        rows.append([NAMES[record.database], *(f"{pace:,.0f}" for pace in paces), f"{paces[-1] / paces[0] - 1:+.0%}"])
        groups.append((NAMES[record.database], [(f"{count(number)} closed", rate) for number, rate in rates.items()]))
    text = (
        "### Closed instances in the tables\n\n"
        "Activities per second of the first workload, beside closed instances of one activity each (four events); the "
        f"databases take turns.\n\n{table(head, rows)}\n\n"
        "![Pace by closed instances](performance/closed.svg)"
    )
    return Section(text, {"closed": bars("Activities per second, by closed instances in the tables", groups)})


def sleepers(records: Records) -> Section:
    rows, sleeping = [], "0"
    for record in records.values():
        sleeping = count(record.parameters["sleepers"])
        for name, label in (("without", "0"), ("with", sleeping)):
            found = (record.figures or {})[name]
            polls = f"{found['polls_per_second']:.1f}"
            rows.append([NAMES[record.database], label, f"{found['cpu']:.2%}", polls, milliseconds(found["poll"])])
    head = ["database", "sleeping instances", "CPU, of one core", "polls a second", "one poll, ms: p50, p99"]
    return Section(f"### An idle worker beside sleeping instances\n\n{table(head, rows)}")


def history(records: Records) -> Section:
    rows = []
    for record in records.values():
        for events, found in (record.figures or {}).items():
            cells = [f"{found[name] * 1e3:.2f}" for name in ("append", "append_first", "append_last", "load", "replay")]
            rows.append([NAMES[record.database], count(events), *cells])
    head = ["database", "events", "ms per event", "in the first tenth", "in the last tenth", "read, ms", "replay, ms"]
    text = "One instance runs activities one after the other; then its history is read and replayed."
    return Section(f"### Length of a history\n\n{text}\n\n{table(head, rows)}")


def processes(records: Records) -> Section:
    rows, head = [], ["database", "work"]
    for record in records.values():
        for workload, rates in (record.figures or {}).items():
            head = ["database", "work", *(f"{number} processes" if number != "1" else "1 process" for number in rates)]
            rows.append([NAMES[record.database], workload, *(f"{rate:,.0f}" for rate in rates.values())])
    return Section(f"### Worker processes\n\nActivities per second.\n\n{table(head, rows)}")


def transaction(records: Records) -> Section:
    rows = []
    for record in records.values():
        for name, found in (record.figures or {}).items():
            label = f"{name} an open transaction elsewhere"
            rows.append([NAMES[record.database], label, f"{found['first']:,.0f}", f"{found['last']:,.0f}"])
    seconds = next(iter(records.values())).parameters["sustained"]
    head = ["database", "", "first third", "last third"]
    text = f"Activities per second during {seconds:g} s of the first workload."
    return Section(f"### Beside a long open transaction\n\n{text}\n\n{table(head, rows)}")


def payloads(records: Records) -> Section:
    rows, head = [], ["database"]
    for record in records.values():
        rates = record.figures or {}
        head = ["database", *(f"{count(size)} characters" for size in rates)]
        cells = [f"{rate:,.0f} ({rate * int(size) * 2 / 1e6:.1f} MB/s)" for size, rate in rates.items()]
        rows.append([NAMES[record.database], *cells])
    text = "### Size of payloads\n\nActivities per second, each with an argument and a result of that size.\n\n"
    return Section(text + table(head, rows))


def memory(records: Records) -> Section:
    (record,) = records.values()
    found = record.figures or {}
    base = found["0"]
    rows = [
        [count(number), f"{size / 2**20:.0f}", f"{(size - base) / int(number) / 1024:.1f}" if number != "0" else ""]
        for number, size in found.items()
    ]
    text = "### Memory of a worker\n\nInstances held between their steps, each after three activities.\n\n"
    return Section(text + table(["instances in memory", "MiB", "KiB each"], rows))

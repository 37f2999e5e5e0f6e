"""Latency, and where the time goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.case import Record
from benchmarks.figures import in_commits

from .markdown import NAMES, Section, count, milliseconds, table

Records = Mapping[str, Record]
_MOST_FUNCTIONS = 15
_LEAST_SECONDS = 0.2e-6  # per activity; less is not worth a row


def latency(records: Records) -> Section:
    rows = []
    for record in records.values():
        figures = record.figures or {}
        rows.append([
            NAMES[record.database], record.parameters["wakeups"].replace("-", " "), *_chain(figures),
            milliseconds(figures["start_to_activity"]), milliseconds(figures["start_to_result"]),
            milliseconds(figures["signal_to_activity"]),
        ])  # fmt: skip
    head = [
        "database", "wake-ups", "one commit", "per sequential activity (of a commit)", "start to activity",
        "start to result", "signal to activity",
    ]  # fmt: skip
    text = (
        "### Latency of an idle worker\n\n"
        "Median and 99th percentile in milliseconds; another process starts and signals. `result()` asks the database "
        "now and then, which the step before does not.\n\n" + table(head, rows)
    )
    return Section(text)


def disks(records: Records) -> Section:
    rows = [
        [NAMES[record.database], f"{delay} ms", *_chain(figures)]
        for record in records.values()
        for delay, figures in (record.figures or {}).items()
    ]
    head = ["database", "each flush longer by", "one commit", "per sequential activity (of a commit)"]
    text = (
        "### Slower disks\n\n"
        "The server waits before each flush of its log, as a slower disk would (`commit_delay`). Median and 99th "
        "percentile in milliseconds.\n\n"
    )
    return Section(text + table(head, rows))


def _chain(figures: Mapping[str, Any]) -> tuple[str, str]:
    """Return the cells of a commit and of a sequential activity."""
    return milliseconds(figures["commit"]), f"{milliseconds(figures['per_activity'])} ({in_commits(figures):.1f}x)"


def profile(records: Records) -> Section:
    text = (
        "### Where the time goes\n\n"
        "The first workload on one worker process, and one instance alone, whose activities wait for each other. "
        "*Turns* is the thread that steps instances and talks to the database; the rest is threads of activities.\n\n"
    )
    rows = []
    for record in records.values():
        rows.append([*_whose(record), *_summary(record.figures or {})])
    head = [
        "database", "", "µs per activity", "CPU of turns", "CPU of the rest", "in the database", "statements",
        "commits",
    ]  # fmt: skip
    text += table(head, rows) + "\n\nMicroseconds, statements and commits per activity.\n"
    for record in records.values():
        figures = record.figures or {}
        text += f"\n**{', '.join(_whose(record))}**\n\n{_statements(figures)}\n\n{_functions(figures)}\n"
    return Section(text.rstrip())


def _whose(record: Record) -> tuple[str, str]:
    number = record.parameters["instances"]
    return NAMES[record.database], "one instance" if number == 1 else f"{count(number)} instances"


def _summary(figures: dict[str, Any]) -> list[str]:
    activities = figures["activities"]
    statements = sum(number for number, _ in figures["statements"].values())
    waited = sum(seconds for _, seconds in figures["statements"].values()) + figures["commits"][1]
    times = (figures["seconds"], figures["cpu_turns"], figures["cpu"] - figures["cpu_turns"], waited)
    return [
        *(f"{seconds / activities * 1e6:.0f}" for seconds in times),
        f"{statements / activities:.3f}",
        f"{figures['commits'][0] / activities:.4f}",
    ]


def _statements(figures: dict[str, Any]) -> str:
    activities = figures["activities"]
    entries = [*figures["statements"].items(), ("COMMIT", figures["commits"])]
    entries.sort(key=lambda entry: -entry[1][1])
    rows = []
    for label, (number, seconds) in entries:
        if seconds / activities > _LEAST_SECONDS:
            each, share = seconds / number * 1e3, seconds / activities * 1e6
            rows.append([label, f"{number / activities * 1000:.1f}", f"{share:.1f}", f"{each:.2f}"])
    return table(["statement", "per 1,000 activities", "µs per activity", "ms each"], rows)


def _functions(figures: dict[str, Any]) -> str:
    """Return the places where the thread of turns was found, as shares of its time without waiting for work."""
    busy = [(phase, place, number) for phase, place, number in figures["samples"] if "wait" not in phase.lower()]
    total = sum(number for _, _, number in busy) or 1
    counts: Counter[tuple[str, str]] = Counter()
    for phase, place, number in busy:
        counts[phase, place] += number
    rows = [[phase, place, f"{number / total:.1%}"] for (phase, place), number in counts.most_common(_MOST_FUNCTIONS)]
    return table(["part of the turn", "function", "share of the busy time"], rows)

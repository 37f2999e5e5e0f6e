"""Putting the sections into a page, and the pictures beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.case import Case, Record
from benchmarks.results import Results

from . import peers, scale, single
from .markdown import NAMES, Section
from .targets import targets

BEGIN, END = "<!-- benchmarks begin -->", "<!-- benchmarks end -->"
_SECTIONS: dict[str, Callable[[Mapping[str, Record]], Section]] = {
    "comparison": peers.comparison, "vendors": peers.vendors, "latency": single.latency, "disks": single.disks,
    "closed": scale.closed, "sleepers": scale.sleepers, "history": scale.history, "processes": scale.processes,
    "transaction": scale.transaction, "payloads": scale.payloads, "memory": scale.memory, "profile": single.profile,
}  # fmt: skip


def write(results: Results, cases: Sequence[Case], target: Path) -> None:
    """Render the newest results of some cases between the markers of a page, or as a page of their own."""
    sections = list(_sections([record for case in cases if (record := results.latest(case)) is not None]))
    if not sections:
        return
    text = target.read_text() if target.exists() else f"{BEGIN}\n{END}\n"
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected {BEGIN} and {END} once each in {target}: the report goes between them")
    before, rest = text.split(BEGIN)
    body = "\n\n".join(section.markdown for section in sections if section.markdown)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{rest.split(END)[1]}")
    folder = target.with_suffix("")
    for section in sections:
        for name, picture in section.pictures.items():
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.svg").write_text(picture)


def _sections(records: list[Record]) -> Iterator[Section]:
    if not records:
        return
    yield _header(records)
    found: dict[str, dict[str, Record]] = {}
    for part in _SECTIONS:
        of_part = {record.name: record for record in records if record.part == part}
        if of_part:
            found[part] = of_part
    yield targets(lambda part: found.get(part, {}))
    for part, of_part in found.items():
        yield _SECTIONS[part](of_part)


def _header(records: list[Record]) -> Section:
    days = sorted({record.date[:10] for record in records})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    commits = ", ".join(dict.fromkeys(record.commit for record in records))
    first = records[0].environment
    servers: dict[str, str] = {}
    for record in records:
        servers[NAMES[record.database]] = f"{record.environment['database']}, {record.environment['driver']}"
    return Section(
        f"## Measured on {when}\n\n"
        f"{first['machine']}, {first['system']}; Python {first['python']}, Django {first['django']}; "
        f"{'; '.join(f'{name} {text}' for name, text in servers.items())}. Commit {commits}. `make bench`."
    )

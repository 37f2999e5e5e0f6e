"""The harness measures our engine on SQLite in tiny sizes, survives cases that fail, and renders what it has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.case import Case
from benchmarks.parts import PARTS
from benchmarks.report.page import BEGIN, END
from benchmarks.results import Results, fingerprint
from benchmarks.runner import Runner
from benchmarks.sizes import Sizes
from benchmarks.systems import ours
from benchmarks.workloads import WORKLOADS, Tree
from tests.settings import sqlite_path

pytestmark = pytest.mark.skipif(
    os.environ.get("DATABASE", "sqlite") != "sqlite", reason="the harness picks its databases itself: once is enough"
)


SIZES = replace(Sizes.small(), closed=(10,), events=(20,), machines=(5,))


def cases() -> Iterator[Case]:
    """Yield the cases that need neither a peer nor a server."""
    for part in PARTS.values():
        of_part = [case for case in part.cases(SIZES) if case.part not in ("comparison", "vendors")]
        yield from [case for case in of_part if case.database == "sqlite"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    path = tmp_path_factory.mktemp("benchmarks") / "results.jsonl"
    Runner(Results(path)).run(list(cases()))
    return Results(path)


def own_databases() -> list[Path]:
    path = Path(sqlite_path(f"workflows_benchmark_{os.getpid()}"))
    return list(path.parent.glob(f"{path.stem}*"))


def test_each_part_measures_something(results: Results) -> None:
    assert [(record.part, record.error) for record in results.records] == [(case.part, "") for case in cases()]
    assert len(results.records) == 10
    assert all(record.figures for record in results.records)


def test_nothing_is_left_behind(results: Results) -> None:
    assert own_databases() == []


def test_what_was_measured_is_not_measured_again(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(results.records)
    assert Runner(results).run(list(cases())) == 0
    assert len(results.records) == before
    assert capsys.readouterr().out.count("measured before") == before


def test_another_engine_or_another_size_counts_as_not_measured(results: Results) -> None:
    case = next(cases())
    assert results.has(case, fingerprint())
    assert not results.has(case, "another engine")
    assert not results.has(Case(case.part, case.name, case.database, case.timeout, {"samples": 99}), fingerprint())


def test_the_report_goes_between_the_markers(results: Results, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\n## After\n")
    report.write(results, list(cases()), page)
    report.write(results, list(cases()), page)  # once more changes nothing
    text = page.read_text()
    assert text.startswith(f"# Before\n\n{BEGIN}\n\n## Measured on ") and text.endswith(f"\n\n{END}\n\n## After\n")
    assert "old" not in text
    assert "### Where the time goes" in text and "INSERT historyevent" in text
    assert (tmp_path / "performance" / "closed.svg").read_text().startswith("<svg ")


def test_a_page_without_markers_is_refused(results: Results, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Prose that nobody wants to lose\n")
    with pytest.raises(ValueError, match=f"expected {BEGIN} and {END} once each"):
        report.write(results, list(cases()), page)


def test_a_case_that_takes_too_long_is_ended_and_the_next_one_runs(tmp_path: Path) -> None:
    endless = Case("sleepers", "sqlite", "sqlite", 1.5, Sizes.small().only("threads") | {"sleepers": 1, "idle": 600.0})
    broken = Case("memory", "sticky", "sqlite", 30.0, {})
    results = Results(tmp_path / "results.jsonl")
    assert Runner(results).run([endless, broken]) == 2
    first, second = Results(results.path).records
    assert first.error.startswith("not done within 1.5 s") and first.figures is None
    assert second.error.startswith("KeyError: 'threads'")
    assert own_databases() == []
    assert not results.has(endless, fingerprint())


def test_a_line_cut_off_in_the_middle_is_passed_over(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    whole = json.dumps(results.records[0].to_json())
    path.write_text(f"{whole}\n{whole[:50]}")
    assert len(Results(path).records) == 1


def test_every_workload_is_a_method_of_a_system() -> None:
    assert all(hasattr(ours.Ours, name) for name in WORKLOADS)


def test_the_tree_is_that_of_go_workflows() -> None:
    tree = Tree(runs=1, depth=2, fanout=2, leaffanout=2, activities=2, resultsize=100)
    assert (tree.instances_per_root, tree.activities_per_root) == (15, 16)

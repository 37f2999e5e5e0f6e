"""Measures what is missing, then renders the report: `python -m benchmarks [PART[/CASE] ...]`.

Cases are independent of each other. One that was measured with the same sizes and the same engine is not measured
again, so an interrupted run goes on where it stopped. `--small` tries out in minutes whether everything works.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from benchmarks import report, sizes  # noqa: E402
from benchmarks.case import Case  # noqa: E402
from benchmarks.parts import PARTS  # noqa: E402
from benchmarks.results import ROOT, Results  # noqa: E402
from benchmarks.runner import Runner  # noqa: E402
from benchmarks.sizes import Sizes  # noqa: E402


def main() -> int:
    options = _parser().parse_args()
    cases = _selected(options)
    if options.list:
        for case in cases:
            print(f"{case.label:40} {case.database:12} at most {case.timeout / 60:.0f} min  {case.parameters}")
        return 0
    default = ROOT / "build" / ("benchmarks-small" if options.small else "benchmarks") / "results.jsonl"
    results = Results((options.results or default).resolve())
    failed = 0
    if not options.render:
        signal.signal(signal.SIGTERM, _interrupt)  # so that a case is ended and its databases are dropped
        ends = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
        failed = Runner(results, again=options.again, ends=ends).run(cases)
    # Figures of a trial run say nothing, and those of other results are not the project's: they stay beside them.
    is_trial = options.small or options.results is not None
    target = results.path.parent / "performance.md" if is_trial else ROOT / "docs" / "performance.md"
    report.write(results, _all(options), target)
    print(f"rendered {target} from {results.path}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add: Any = parser.add_argument
    add("selected", nargs="*", metavar="PART[/CASE]", help=f"of {', '.join(PARTS)}; all unless some are named")
    add("--small", action="store_true", help="tiny sizes, to try out whether it works; does not touch docs/")
    add("--again", action="store_true", help="measure even what has been measured")
    add("--minutes", type=float, metavar="N", help="begin no case after this time; the next run goes on")
    add("--results", type=Path, metavar="FILE", help="default: build/benchmarks/results.jsonl; renders beside another")
    add("--render", action="store_true", help="measure nothing, render what there is")
    add("--list", action="store_true", help="print the cases")
    sizes.add_options(parser)
    return parser


def _all(options: argparse.Namespace) -> list[Case]:
    chosen = sizes.from_options(options, Sizes.small() if options.small else Sizes())
    return [case for part in PARTS.values() for case in part.cases(chosen)]


def _selected(options: argparse.Namespace) -> list[Case]:
    cases = _all(options)
    for name in options.selected:
        if not any(_matches(case, name) for case in cases):
            sys.exit(f"expected a part or a case, found {name!r}; see --list")
    return [case for case in cases if not options.selected or any(_matches(case, name) for name in options.selected)]


def _matches(case: Case, name: str) -> bool:
    return case.part == name or case.label == name or case.label.startswith(f"{name}/")


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

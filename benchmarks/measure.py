"""Measures one case, in a process of its own: `python -m benchmarks.measure PART CASE OUTPUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import django


def main() -> None:
    django.setup()
    from benchmarks.case import Case
    from benchmarks.parts import PARTS

    case = Case(**json.loads(sys.argv[1]))
    figures = PARTS[case.part].measure(case)
    # To a file: what the processes of a case print goes to its log, and one that hangs would keep a pipe open.
    Path(sys.argv[2]).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()

"""`python -m tests.simulation 17` replays one seed and prints its trace; `0-1500 --jobs 2` runs many."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
import django

django.setup()

from .simulation import run  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="one seed, whose trace is printed, or a range like 0-1500")
    parser.add_argument("--jobs", type=int, default=1, help="processes to run them in")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    if not last:
        result = run(int(first))
        print(result.report())
        return 1 if result.violation else 0
    failed = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for seed, violation in pool.map(find_violation, range(int(first), int(last) + 1), chunksize=20):
            if violation:
                failed.append(seed)
                print(f"seed {seed}: {violation}\n    python -m tests.simulation {seed}", flush=True)
            if seed % 1000 == 999:
                print(f"up to seed {seed}: {len(failed)} failed", flush=True)
    print(f"{int(last) - int(first) + 1} seeds, {len(failed)} failed")
    return 1 if failed else 0


def find_violation(seed: int) -> tuple[int, str]:
    return seed, str(run(seed).violation or "")


if __name__ == "__main__":
    sys.exit(main())

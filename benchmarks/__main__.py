"""Measures every database that answers, one after the other, and prints a table."""

from __future__ import annotations

import json
import subprocess
import sys

from .databases import environment


def main() -> None:
    rows = []
    for vendor in ("sqlite", "postgresql", "mariadb"):
        command = [sys.executable, "-m", "benchmarks.measure", *sys.argv[1:]]
        done = subprocess.run(command, env=environment(vendor), capture_output=True, text=True)
        if done.returncode:
            print(f"{vendor}: not measured\n{done.stderr[-2000:]}", file=sys.stderr)
            continue
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print("| database | activities/s | start to result, idle worker: p50, p99 ms | same, announced: p50, p99 ms |"
          " statements, commits per activity |")  # fmt: skip
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        idle, announced = row["latency"], row["latency_in_process"]
        print(
            f"| {row['vendor']} | {row['rate']:,.0f} | {idle['p50']:.1f}, {idle['p99']:.1f} "
            f"| {announced['p50']:.1f}, {announced['p99']:.1f} | {row['statements']:.2f}, {row['commits']:.3f} |"
        )


if __name__ == "__main__":
    main()

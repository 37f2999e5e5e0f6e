"""Runs one workload on one system, in a process of its own: `python -m benchmarks.drive '{"system": "ours", ...}'`.

The last line of the output is JSON. A short run of the same workload goes before, so that no import or first
connection is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks import databases
from benchmarks.workloads import WORKLOADS


def drive(system: str, workload: str, parameters: dict[str, Any], vendor: str = "postgresql", **options: Any) -> float:
    """Return the seconds that a system takes; `options` are those of Ours, `vendor` is its database."""
    request = {"system": system, "workload": workload, "parameters": parameters, "options": options}
    command = [sys.executable, "-m", "benchmarks.drive", json.dumps(request)]
    environment = databases.environment(vendor, os.environ["DATABASE_NAME"])
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ChildProcessError(f"{workload} on {system} ended with code {done.returncode}; its log is above")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    import django

    django.setup()
    from benchmarks import systems
    from benchmarks.systems.ours import Ours

    request = json.loads(sys.argv[1])
    workload = WORKLOADS[request["workload"]]
    name = request["system"]
    system = Ours(**request["options"]) if name == "ours" else systems.load(name)
    run = getattr(system, workload.name)
    with system.serving():
        run(**workload.warm_up)
        started = time.perf_counter()
        run(**workload.parameters(request["parameters"]))
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()

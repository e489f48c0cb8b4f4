"""What do several workers gain? The same cells with one and two workers, local and by Ray.

Usage: python benchmarks/perf/executors.py [--jobs 1 2] [--executor local ray] [--threads 1] [-- CELLS...]

CELLS are options of `tsbench run`; unless given, TS-Memory on ETTh1 and ETTh2 with two seeds, profile quick.
Each run is a command of its own with an empty TSBENCH_HOME and an empty results store, so that nothing is
reused, and its time holds everything: start-up of the workers, data, training, the table. One local job is
the command itself, without a worker. Let nothing else run on the machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

CELLS = "--method ts-memory --dataset ETTh1 ETTh2 --horizon 96 --seed 0 1 --profile quick"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--executor", nargs="+", default=["local", "ray"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("cells", nargs="*", default=CELLS.split())
    asked = parser.parse_args()
    rows = []
    for executor in asked.executor:
        first = 0.0
        for jobs in asked.jobs:
            workers = ["--executor", executor, "--jobs", str(jobs), "--threads", str(asked.threads)]
            seconds, records = measure([*asked.cells, *workers])
            first = first or seconds
            rows.append((executor, jobs, records, f"{seconds:.1f}", f"{first / seconds:.2f}"))
            print(f"{executor}, {jobs} workers: {seconds:.1f} s", file=sys.stderr)
    print(tabulate(rows, ("executor", "workers", "cells", "seconds", "speed-up"), tablefmt="pipe"))


def measure(options: list[str]) -> tuple[float, int]:
    """Seconds of `tsbench run` from nothing, and the number of cells it finished."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        command = [sys.executable, "-m", "tsbench", "run", *options, "--results", str(results)]
        environment = os.environ | {"TSBENCH_HOME": str(Path(folder) / "home")}
        started = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started, len(list(results.glob("records/*/*.parquet")))


if __name__ == "__main__":
    main()

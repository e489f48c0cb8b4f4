"""Measuring whole processes: a script runs itself again with `--part`, and reads what that process cost."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsbench.bench.provenance import peak_rss_mb


@dataclass(frozen=True)
class Cost:
    """What a process took from its start to its end, imports included, and what it found out."""

    seconds: float
    peak_mb: float
    found: dict[str, Any]


def finish(**found: object) -> None:
    """Last line of a measured process."""
    print(json.dumps({"peak_mb": peak_rss_mb(), "found": found}))


def measure(script: str, part: str, options: Iterable[object] = (), **variables: str) -> Cost:
    """Run `script --part PART OPTIONS` as a process of its own.

    Args:
        script: Path of a Python file whose process ends with `finish`.
        part: Which of its parts.
        options: Further arguments.
        **variables: Environment variables it gets besides ours.
    """
    command = [sys.executable, script, "--part", part, *map(str, options)]
    started = time.perf_counter()
    done = subprocess.run(command, env=os.environ | variables, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    last = json.loads(done.stdout.splitlines()[-1])
    return Cost(seconds, last["peak_mb"], last["found"])


def medians(costs: Mapping[str, Sequence[Cost]]) -> list[tuple[str, str, str, str]]:
    """Rows of a table: each part's median time, largest peak, and time in units of the first part's."""
    rows, first = [], 0.0
    for part, runs in costs.items():
        seconds = sorted(run.seconds for run in runs)[len(runs) // 2]
        peak = max(run.peak_mb for run in runs)
        first = first or seconds
        rows.append((part, f"{seconds:.2f}", f"{peak:.0f}", f"{seconds / first:.2f}"))
    return rows

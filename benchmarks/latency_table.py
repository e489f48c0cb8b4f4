"""What adapters add to a single query, from the committed measurements: the table of docs/latency.md.

Usage: python benchmarks/latency_table.py [--results results]

The measurements come from the commands above that table. Origin is the median over the rounds; the others
are the medians of their differences to Origin in the same round, in percent of that.
"""

import argparse
from pathlib import Path

import numpy as np
from tabulate import tabulate

from tsbench.bench.latency_records import Measurement, load_measurements
from tsbench.report.labels import METHOD_NAMES

ADDED = ("raft", "ts-rag", "lora", "ts-memory")


def table(results: Path) -> str:
    """Markdown: a row per backbone and horizon, single queries alone."""
    measured = [each for each in load_measurements(results) if each.spec.batch == 1]
    rows = [
        [
            f"{each.spec.backbone}{' (random weights)' if each.spec.random_init else ''}",
            each.spec.horizon,
            each.spec.plugmem,
            number_format(each),
            f"{np.median(each.costs['origin'].totals):.1f}",
            *(added(each, method) for method in ADDED),
        ]
        for each in sorted(
            measured, key=lambda each: (network_size(each), each.spec.horizon, number_format(each))
        )
    ]
    headers = [
        "backbone",
        "H",
        "PlugMem",
        "run in",
        "Origin, ms",
        *(METHOD_NAMES[method] for method in ADDED),
    ]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def network_size(measured: Measurement) -> int:
    """Parameters of the backbone alone."""
    return measured.costs["origin"].parameters or 0


def number_format(measured: Measurement) -> str:
    """Such as "fp32, compiled"."""
    return measured.spec.precision + (", compiled" if measured.spec.compiled else "")


def added(measured: Measurement, method: str) -> str:
    """Such as "+2.7 %"; "–" where it was not timed."""
    if method not in measured.costs:
        return "–"
    origin = np.array(measured.costs["origin"].totals)
    difference = np.median(np.array(measured.costs[method].totals) - origin)
    return f"{100 * difference / np.median(origin):+.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    print(table(parser.parse_args().results))


if __name__ == "__main__":
    main()

"""How often does the test reject where there is no difference, and the interval hold the truth?

Usage: python benchmarks/dm_size.py [--draws 20000] [--block 12] [--blocks 3 5 14 29 119]

For windows that overlap: errors are moving sums of `--block` independent steps, as of forecasts whose windows
share their targets and nothing else.

The test's differences are sums of normal numbers. Printed are the shares of draws with p below 5 and 0.1 %,
for `tsbench.metrics.significance.diebold_mariano` and for the same statistic with W - 1 degrees of freedom.

The errors that the interval compares are sums of squared normal numbers, correlated by 0.9 between the two
forecasts; ours have the smaller variance, so that the true change is -5 %. Printed is the share of draws in
which the 95 % interval by `tsbench.metrics.overlap.relative_change` holds it.
"""

import argparse
import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate

from tsbench.metrics.overlap import relative_change
from tsbench.metrics.significance import diebold_mariano

RATIO, CORRELATION = 0.95, 0.9
Errors = NDArray[np.float64]


def shares(draws: int, block: int, blocks: int, seed: int) -> list[str]:
    """Percent of draws below 5 and 0.1 %, with our degrees of freedom and with W - 1."""
    rng = np.random.default_rng(seed)
    windows = block * blocks
    noise = rng.standard_normal((draws, windows + block - 1)).cumsum(axis=1)
    sums = noise[:, block - 1 :] - np.pad(noise[:, : windows - 1], ((0, 0), (1, 0)))
    tests = [diebold_mariano(row, np.zeros(windows), block) for row in sums]
    plain = 2 * stats.t.sf(np.abs([test.statistic for test in tests]), windows - 1)
    ours = np.array([test.p for test in tests])
    return [f"{100 * np.mean(p < level):.2f}" for p in (ours, plain) for level in (0.05, 0.001)]


def error_pair(rng: np.random.Generator, block: int, blocks: int) -> tuple[Errors, Errors]:
    """[W] errors of ours and of the reference; the ratio of their expectations is RATIO."""
    theirs, own = rng.standard_normal((2, block * blocks + block - 1))
    ours = CORRELATION * theirs + math.sqrt(1 - CORRELATION**2) * own
    ours_sums, reference_sums = (
        np.convolve(steps**2, np.ones(block), mode="valid") for steps in (ours, theirs)
    )
    return RATIO * ours_sums, reference_sums


def coverage(draws: int, block: int, blocks: int, seed: int) -> str:
    """Percent of draws whose interval holds the true change."""
    rng = np.random.default_rng(seed)
    truth = 100 * (RATIO - 1)
    found = (relative_change(*error_pair(rng, block, blocks), block).interval for _ in range(draws))
    return f"{100 * np.mean([interval.low <= truth <= interval.high for interval in found]):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--block", type=int, default=12)
    parser.add_argument("--blocks", type=int, nargs="+", default=[3, 5, 14, 29, 119])
    asked = parser.parse_args()
    rows = [
        [
            blocks,
            *shares(asked.draws, asked.block, blocks, seed),
            coverage(asked.draws, asked.block, blocks, seed),
        ]
        for seed, blocks in enumerate(asked.blocks)
    ]
    sizes = ("p < 5 %, %", "p < 0.1 %, %", "W - 1: p < 5 %, %", "p < 0.1 %, %")
    print(tabulate(rows, ("blocks", *sizes, "interval holds, %"), tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

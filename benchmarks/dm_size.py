"""How often does the Diebold-Mariano test reject when there is no difference? For windows that overlap.

Usage: python benchmarks/dm_size.py [--draws 20000] [--block 12] [--blocks 3 5 14 29 119]

Differences are moving sums of `--block` independent normal numbers, as between forecasts whose windows share
their targets and nothing else. Printed are the shares of draws with p below 5 and 0.1 %, for
`tsbench.metrics.significance.diebold_mariano` and for the same statistic with W - 1 degrees of freedom.
"""

import argparse

import numpy as np
from scipy import stats
from tabulate import tabulate

from tsbench.metrics.significance import diebold_mariano


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--block", type=int, default=12)
    parser.add_argument("--blocks", type=int, nargs="+", default=[3, 5, 14, 29, 119])
    asked = parser.parse_args()
    rows = [
        [blocks, *shares(asked.draws, asked.block, blocks, seed)] for seed, blocks in enumerate(asked.blocks)
    ]
    headers = ("blocks", "p < 5 %, %", "p < 0.1 %, %", "W - 1: p < 5 %, %", "p < 0.1 %, %")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

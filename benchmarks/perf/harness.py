"""What does evaluation take beside the backbone's forward pass, and does its memory grow with the windows?

Usage: python benchmarks/perf/harness.py [--backbone flame-small] [--dataset ETTh1] [--windows 500 1000 2000]

Zero-shot evaluation of the first test windows at H = 96 (or `--horizon`) from L = 512, from an empty forecast
cache, each number of windows in a process of its own. Time inside the backbone's `predict` is the forward
pass; all else is the harness: cutting windows, writing the cache with its checksums, reading it, and every
score. Nothing waits for a GPU, so this is for processors. A warm-up of a few windows before the clock starts,
and the start of the process, are not in it. Peak memory is that of the process. Exits with 1 when the harness
takes more than 5 % of the time of the largest number of windows, or the peak there is more than 10 % above
that of the smallest.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from processes import finish, measure
from tabulate import tabulate

LOOKBACK = 512
MOST_SHARE, MOST_GROWTH = 0.05, 1.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--backbone", default="flame-small")
    parser.add_argument("--dataset", default="ETTh1", help="'demo' needs no data")
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--windows", type=int, nargs="+", default=[500, 1_000, 2_000])
    asked = parser.parse_args()
    options = ["--backbone", asked.backbone, "--dataset", asked.dataset, "--horizon", asked.horizon]
    if asked.part is not None:
        run(asked.backbone, asked.dataset, asked.horizon, asked.part)
        return 0
    costs = {windows: measure(__file__, str(windows), options) for windows in sorted(asked.windows)}
    rows = []
    for windows, cost in costs.items():
        total, forward = cost.found["seconds"], cost.found["forward"]
        rows.append((windows, f"{total:.2f}", f"{forward:.2f}", 1 - forward / total, cost.peak_mb))
    print(f"{asked.backbone} on {asked.dataset}, H = {asked.horizon}\n")
    headers = ("windows", "seconds", "forward, s", "harness, %", "peak MiB")
    print(
        tabulate(
            [(*row[:3], f"{100 * row[3]:.1f}", f"{row[4]:.0f}") for row in rows], headers, tablefmt="github"
        )
    )
    return int(rows[-1][3] > MOST_SHARE or rows[-1][4] > MOST_GROWTH * rows[0][4])


def run(name: str, data: str, horizon: int, windows: int) -> None:
    import torch

    from tsbench.backbones.base import Backbone, BackboneOptions
    from tsbench.backbones.forecast_cache import FrozenBackbone
    from tsbench.bench.evaluate import evaluate
    from tsbench.data.load import load_dataset
    from tsbench.data.splits import Scaler, split_borders
    from tsbench.data.windows import WindowGrid, window_grid
    from tsbench.registry import load_backbone

    dataset = load_dataset(data, None)
    borders = split_borders(dataset.split, len(dataset.values))
    scaler = Scaler.fit(dataset.values[slice(*borders.train)])
    scaled = scaler.transform(dataset.values)
    backbone = load_backbone(BackboneOptions(name))
    every = window_grid(borders, "test", LOOKBACK, horizon)

    predict, forward = type(backbone).predict, 0.0

    def timed(self: Backbone, context: torch.Tensor, steps: int) -> torch.Tensor:
        nonlocal forward
        began = time.perf_counter()
        result = predict(self, context, steps)
        forward += time.perf_counter() - began
        return result

    def forecast_and_score(count: int) -> None:
        if count > len(every.starts):
            sys.exit(f"{data} has {len(every.starts)} test windows; ask for no more with --windows")
        grid = WindowGrid("test", LOOKBACK, horizon, 1, every.starts[:count], every.total)
        with tempfile.TemporaryDirectory() as folder:
            frozen = FrozenBackbone(backbone, scaled, LOOKBACK, Path(folder), 2**40)
            evaluate(backbone, frozen, grid, scaler)

    forecast_and_score(20)
    with patch.object(type(backbone), "predict", timed):
        started = time.perf_counter()
        forecast_and_score(windows)
    finish(seconds=time.perf_counter() - started, forward=forward)


if __name__ == "__main__":
    sys.exit(main())

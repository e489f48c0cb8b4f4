"""What does one 720-step pass gain that serves the horizons 96, 192, 336 and 720?

Usage: python benchmarks/perf/one_pass.py [--backbone flame-small] [--dataset ETTh1] [--stride 1] [--rounds 3]

Zero-shot evaluation on the test windows of each horizon, every n-th by `--stride`, from L = 512. "one pass"
shares one forecast cache, the longest horizon first, as `tsbench run` does: a shorter horizon reads the first
steps of the windows that the longer one has, and computes the others. "four passes" gives each horizon an
empty cache of its own. Both in turn in one process, after a warm-up; the time has reading and writing the
cache, and scoring. Scores must be the same: the script fails if they are not.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from tsbench.backbones.base import Backbone, BackboneOptions
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.bench.evaluate import evaluate
from tsbench.data.dataset import Dataset
from tsbench.data.load import load_dataset
from tsbench.data.splits import Scaler, split_borders
from tsbench.data.windows import window_grid
from tsbench.registry import load_backbone

HORIZONS, LOOKBACK = (720, 336, 192, 96), 512
CACHE_BYTES = 2**40
Scores = dict[int, tuple[float, float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default="flame-small")
    parser.add_argument("--dataset", default="ETTh1", help="'demo' needs no data")
    parser.add_argument("--horizons", type=int, nargs="+", default=list(HORIZONS))
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    asked = parser.parse_args()
    horizons = sorted(asked.horizons, reverse=True)
    dataset = load_dataset(asked.dataset, None)
    backbone = load_backbone(BackboneOptions(asked.backbone))
    run(backbone, dataset, horizons, max(asked.stride, 500), shared=True)
    spent: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(asked.rounds):
        seconds, one = run(backbone, dataset, horizons, asked.stride, shared=True)
        spent[True].append(seconds)
        seconds, four = run(backbone, dataset, horizons, asked.stride, shared=False)
        spent[False].append(seconds)
        require_equal(one, four)
    one_pass, passes = (sorted(runs)[len(runs) // 2] for runs in spent.values())
    print(f"{asked.backbone} on {asked.dataset}, horizons {horizons}, stride {asked.stride}\n")
    rows = [("four passes", f"{passes:.1f}", ""), ("one pass", f"{one_pass:.1f}", f"{passes / one_pass:.2f}")]
    print(tabulate(rows, ("", "seconds", "times faster"), tablefmt="github"))
    print("\nMSE, MAE and CRPS of all horizons agree.")


def run(
    backbone: Backbone, dataset: Dataset, horizons: list[int], stride: int, *, shared: bool
) -> tuple[float, Scores]:
    """Seconds of evaluating all horizons from empty caches, and their scores."""
    borders = split_borders(dataset.split, len(dataset.values))
    scaler = Scaler.fit(dataset.values[slice(*borders.train)])
    scaled = scaler.transform(dataset.values)
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for horizon in horizons:
            directory = Path(folder) / ("all" if shared else str(horizon))
            frozen = FrozenBackbone(backbone, scaled, LOOKBACK, directory, CACHE_BYTES)
            grid = window_grid(borders, "test", LOOKBACK, horizon, stride)
            found = evaluate(backbone, frozen, grid, scaler).scores
            scores[horizon] = (found.mse, found.mae, found.crps)
        return time.perf_counter() - started, scores


def require_equal(one: Scores, four: Scores) -> None:
    for horizon, found in one.items():
        for own, other in zip(found, four[horizon], strict=True):
            if not math.isclose(own, other, rel_tol=1e-6):
                raise SystemExit(f"H = {horizon}: {found} from one pass, {four[horizon]} from its own")


if __name__ == "__main__":
    main()

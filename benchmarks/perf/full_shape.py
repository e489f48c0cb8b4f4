"""Do data sets of full size stay in memory, through teacher, training and evaluation at H = 720?

Usage: python benchmarks/perf/full_shape.py [--shape traffic electricity] [--part evaluate ts-memory]
           [--profile standard]

Generated values of Traffic's shape (862 channels, 17,544 hourly rows) and Electricity's (321, 26,304), split
0.7 / 0.1 / 0.2, L = 512, each part in a process of its own from nothing. "evaluate" scores the seasonal-naive
forecast with nine quantiles on every 24th test window: for Traffic all forecasts at once would be 2.6 GB at
this stride, 62 GB at stride 1. "ts-memory" is a cell of `tsbench run` on flame-small in the profile asked
for: embeddings, teacher, distillation, fusion weight, test. Exits with 1 if one exceeds its limit, 4,000 and
8,000 MiB.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import finish, measure
from tabulate import tabulate

from tsbench.data.dataset import Dataset
from tsbench.data.demo import array_sha256, demo_timestamps
from tsbench.data.splits import SplitRule

SHAPES = {"traffic": (17_544, 862), "electricity": (26_304, 321), "tiny": (3_000, 9)}
LIMITS_MB = {"evaluate": 4_000, "ts-memory": 8_000}
HORIZON, LOOKBACK, STRIDE, SEASON = 720, 512, 24, 24


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["traffic", "electricity"])
    parser.add_argument("--part", nargs="+", choices=LIMITS_MB, default=list(LIMITS_MB))
    parser.add_argument("--profile", choices=("quick", "standard"), default="standard")
    parser.add_argument("--horizon", type=int, default=HORIZON)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        run = evaluate if asked.part == ["evaluate"] else ts_memory
        run(generate(asked.shape[0]), asked.horizon, asked.profile)
        return 0
    rows, over = [], False
    for shape in asked.shape:
        for part in asked.part:
            options = ["--inside", "--shape", shape, "--profile", asked.profile, "--horizon", asked.horizon]
            with tempfile.TemporaryDirectory() as home:
                cost = measure(__file__, part, options, TSBENCH_HOME=home)
            over |= cost.peak_mb > LIMITS_MB[part]
            stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in cost.found.items())
            rows.append(
                (shape, part, f"{cost.seconds:.0f}", f"{cost.peak_mb:.0f}", LIMITS_MB[part], stages or "–")
            )
    headers = ("shape", "part", "seconds", "peak MiB", "limit", "seconds of stages")
    print(tabulate(rows, headers, tablefmt="github"))
    return int(over)


def generate(shape: str) -> Dataset:
    """Daily cycles with noise."""
    rows, channels = SHAPES[shape]
    generator = np.random.default_rng(0)
    hour = np.arange(rows)[:, None]
    phase = generator.uniform(0, SEASON, channels)
    values = generator.normal(0, 0.3, (rows, channels))
    values += np.sin(2 * np.pi * (hour + phase) / SEASON)
    return Dataset(
        name=f"{shape}-shaped",
        values=values,
        timestamps=demo_timestamps(rows),
        channels=tuple(str(channel) for channel in range(channels)),
        freq="1h",
        season=SEASON,
        split=SplitRule("ratio", 0.7, 0.1, 0.2),
        horizons=(HORIZON,),
        sha256=array_sha256(values),
    )


def evaluate(dataset: Dataset, horizon: int, profile: str) -> None:
    import tsbench
    from tsbench.backbones.base import BackboneOptions
    from tsbench.backbones.naive import load

    forecaster = load(BackboneOptions("naive-seasonal", season=SEASON))
    tsbench.evaluate(forecaster, dataset, horizon, lookback=LOOKBACK, stride=STRIDE)
    finish()


def ts_memory(dataset: Dataset, horizon: int, profile: str) -> None:
    from tsbench.bench.grid import cells
    from tsbench.bench.runner import Bench, run_cell
    from tsbench.bench.store import ResultsStore
    from tsbench.config import TsMemoryOptions

    (spec,) = cells(
        method="ts-memory",
        backbone="flame-small",
        datasets=(),
        horizons=(horizon,),
        seeds=(0,),
        variants=(TsMemoryOptions(plugmem="tiny"),),
        own_data=(dataset.name,),
        profile=profile,
    )
    store = ResultsStore(Path(os.environ["TSBENCH_HOME"]) / "results")
    record = run_cell(Bench(store, own_data={dataset.name: dataset}), spec)
    prefix = "seconds_"
    seconds = {name: value for name, value in record.costs.items() if name.startswith(prefix)}
    finish(**{name.removeprefix(prefix): value for name, value in seconds.items()})


if __name__ == "__main__":
    sys.exit(main())

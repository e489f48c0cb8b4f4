"""Peak memory of evaluating a data set of Traffic's shape; exits with 1 above the limit.

Usage: python benchmarks/traffic_memory.py

Generated values: 862 channels, 17,544 hourly rows, split 0.7 / 0.1 / 0.2. The seasonal-naive forecast with
nine quantiles at H = 720 from L = 512, every 24th test window. Holding all forecasts at once would take
2.6 GB at this stride and 62 GB at stride 1; the evaluator holds those of one window.
"""

import sys
import time

import numpy as np

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.naive import load
from tsbench.bench.provenance import peak_rss_mb
from tsbench.data.dataset import Dataset
from tsbench.data.demo import array_sha256, demo_timestamps
from tsbench.data.splits import SplitRule

ROWS, CHANNELS, SEASON = 17_544, 862, 24
HORIZON, LOOKBACK, STRIDE = 720, 512, 24
LIMIT_MB = 4_000


def generate() -> Dataset:
    generator = np.random.default_rng(0)
    hour = np.arange(ROWS)[:, None]
    phase = generator.uniform(0, SEASON, CHANNELS)
    values = generator.normal(0, 0.3, (ROWS, CHANNELS))
    values += np.sin(2 * np.pi * (hour + phase) / SEASON)
    return Dataset(
        name="traffic-shaped",
        values=values,
        timestamps=demo_timestamps(ROWS),
        channels=tuple(str(channel) for channel in range(CHANNELS)),
        freq="1h",
        season=SEASON,
        split=SplitRule("ratio", 0.7, 0.1, 0.2),
        horizons=(HORIZON,),
        sha256=array_sha256(values),
    )


def main() -> int:
    dataset = generate()
    forecaster = load(BackboneOptions("naive-seasonal", season=SEASON))
    started = time.perf_counter()
    scores = tsbench.evaluate(forecaster, dataset, HORIZON, lookback=LOOKBACK, stride=STRIDE)
    seconds = time.perf_counter() - started
    peak = peak_rss_mb()
    print(f"windows {scores.n_windows}, values {scores.n_points:,}")
    print(f"MSE {scores.mse:.4f}, CRPS {scores.crps:.4f}")
    print(f"seconds {seconds:.1f}, peak resident memory {peak:.0f} MiB (limit {LIMIT_MB})")
    return int(peak > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())

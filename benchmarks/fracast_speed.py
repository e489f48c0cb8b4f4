"""Speed of the fracast adapter beside the package's own `forecast_batch`, on the same rows in one run.

Usage: OMP_NUM_THREADS=1 python benchmarks/fracast_speed.py

Each round takes 64 other contexts (L = 512) of the built-in data set and forecasts one block of 48 steps:
the adapter all rows in one call, the package in batches of 64, 32 and 8, fp32 weights on both sides. The
adapter's cache of padded positions is as warm as it is in a long run: it has seen earlier rows, not these.
The package's quantiles are sorted before they are compared, since the adapter sorts its own.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from fracast import FracastModel
from numpy.typing import NDArray

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.fracast import load
from tsbench.data.windows import gather_contexts

HORIZON, LOOKBACK = 48, 512
ROWS, ROUNDS = 64, 5
PACKAGE_BATCHES = (64, 32, 8)


def contexts() -> list[NDArray[np.float32]]:
    """One array [64, L] a round, the first of them for the warm-up."""
    values = tsbench.load_dataset("demo").values.astype(np.float32)
    windows = ROWS // values.shape[1]
    starts = np.linspace(LOOKBACK, len(values), windows * (ROUNDS + 1)).astype(np.int64)
    cut = gather_contexts(values, starts, LOOKBACK)
    return [cut[first :: ROUNDS + 1].reshape(ROWS, LOOKBACK) for first in range(ROUNDS + 1)]


def timed(forecast: Callable[..., NDArray[np.float32]], *arguments: Any) -> tuple[float, NDArray[np.float32]]:
    """Milliseconds a row, and the forecast."""
    started = time.perf_counter_ns()
    result = forecast(*arguments)
    return (time.perf_counter_ns() - started) / 1e6 / ROWS, result


def main() -> None:
    package = FracastModel.from_pretrained(None, weights="fp32")
    adapter = load(BackboneOptions("fracast"))

    def of_package(rows: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
        parts = [
            package.forecast_batch(rows[first : first + batch], horizon=HORIZON)
            for first in range(0, ROWS, batch)
        ]
        return np.sort(np.concatenate(parts), axis=-1)

    def of_adapter(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return adapter.predict(torch.from_numpy(rows), HORIZON).transpose(1, 2).numpy()

    warm_up, *rounds = contexts()
    of_adapter(warm_up)
    of_package(warm_up, PACKAGE_BATCHES[-1])

    own: list[float] = []
    theirs: dict[int, list[float]] = {batch: [] for batch in PACKAGE_BATCHES}
    difference = 0.0
    for rows in rounds:
        milliseconds, forecast = timed(of_adapter, rows)
        own.append(milliseconds)
        for batch, times in theirs.items():
            milliseconds, reference = timed(of_package, rows, batch)
            times.append(milliseconds)
            difference = max(difference, float(np.abs(forecast - reference).max()))

    print(f"{ROUNDS} rounds of {ROWS} rows, medians; CPU threads: {torch.get_num_threads()}")
    print(f"adapter            {median(own):6.2f} ms/row  ({min(own):.2f} to {max(own):.2f})")
    for batch, times in theirs.items():
        ratio = median(other / mine for other, mine in zip(times, own, strict=True))
        print(f"package, batch {batch:2d}  {median(times):6.2f} ms/row  {ratio:.1f} times the adapter's")
    print(f"largest difference {difference:.1e}, on values up to {np.abs(np.concatenate(rounds)).max():.1f}")


if __name__ == "__main__":
    main()

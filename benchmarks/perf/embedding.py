"""How fast are all train windows embedded, beside a plain loop over windows?

Usage: python benchmarks/perf/embedding.py [--windows 200] [--batch 32 64 128 256] [--threads 1 2]

Contexts of 512 steps of the train windows at H = 96, every channel a row, through the encoder of a network
of Chronos-Bolt-tiny's shape with random weights: weights do not change the time. "tsbench" is
`FrozenBackbone.embeddings` from an empty cache, checksums and all; "plain" hands the channels of one window
at a time from a PyTorch DataLoader to the package's `embed`. Needs the extra `chronos`.

`--windows` takes that many evenly spaced train windows, 0 all of them; the table says what all would take at
the same rate, which is an extrapolation and marked as such. `--batch` times rows per model call of the
adapter, on the same sample. Everything in one process, after a warm-up.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from tabulate import tabulate

from tsbench.backbones.chronos import wrap_bolt
from tsbench.backbones.chronos_random import random_bolt
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.data.load import load_dataset
from tsbench.data.splits import Scaler, split_borders
from tsbench.data.windows import evenly_spaced, gather_contexts, window_grid

LOOKBACK, HORIZON = 512, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="ETTh1", help="'demo' needs no data")
    parser.add_argument("--windows", type=int, default=200, help="0: all")
    parser.add_argument("--batch", type=int, nargs="+", default=[], help="rows per model call to compare")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    asked = parser.parse_args()
    dataset = load_dataset(asked.dataset, None)
    borders = split_borders(dataset.split, len(dataset.values))
    scaled = Scaler.fit(dataset.values[slice(*borders.train)]).transform(dataset.values)
    every = window_grid(borders, "train", LOOKBACK, HORIZON).starts
    starts = every[evenly_spaced(len(every), asked.windows or len(every))]
    torch.manual_seed(0)
    backbone = wrap_bolt("chronos-bolt-tiny", random_bolt("chronos-bolt-tiny").eval(), "median")

    def ours() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            return FrozenBackbone(backbone, scaled, LOOKBACK, Path(folder), 2**40).embeddings(starts)

    def plain() -> np.ndarray:
        from chronos import ChronosBoltPipeline

        pipeline = ChronosBoltPipeline(backbone.model)
        contexts = torch.from_numpy(gather_contexts(scaled, starts, LOOKBACK))
        windows = torch.utils.data.DataLoader(contexts, batch_size=None)
        return torch.stack([pipeline.embed(window)[0][:, -1] for window in windows]).numpy()

    rows = []
    for threads in asked.threads:
        torch.set_num_threads(threads)
        for batch in asked.batch:
            with patch.dict("tsbench.backbones.chronos._ROWS_PER_CALL", cpu=batch):
                rows.append((f"tsbench, {batch} rows per call", threads, timed(ours)[0]))
        seconds, own = timed(ours)
        rows.append(("tsbench", threads, seconds))
        seconds, other = timed(plain)
        rows.append(("plain", threads, seconds))
        apart = np.abs(own - other).max()
    channels, share = scaled.shape[1], len(every) / len(starts)
    print(f"{asked.dataset}: {len(starts)} of {len(every)} windows x {channels} channels\n")
    note = "all windows, s" if share == 1 else "all windows, s (extrapolated)"
    table = [
        (name, threads, f"{s:.2f}", f"{len(starts) * channels / s:.0f}", f"{s * share:.0f}")
        for name, threads, s in rows
    ]
    print(tabulate(table, ("", "threads", "seconds", "rows/s", note), tablefmt="github"))
    print(f"\nLargest difference of an embedding: {apart:.2g}")


def timed(act: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of a call after the first one, and its result."""
    act()
    started = time.perf_counter()
    result = act()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()

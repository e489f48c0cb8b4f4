"""Milliseconds per query of flame-small, fracast and chronos-bolt-tiny, on the same rows in one run.

Usage: OMP_NUM_THREADS=1 python benchmarks/flame_speed.py [--checkpoint DIR]

A query is one context of 512 steps of the built-in data set. Each round takes other contexts and forecasts
them one at a time and as a batch. Chronos-Bolt-tiny has its true architecture and random weights: speed does
not depend on their values. fracast's cache of padded positions is as warm as it is in a long run.
"""

import argparse
import time
from statistics import median

import numpy as np
import torch

import tsbench
from tsbench.backbones import flame, fracast
from tsbench.backbones.base import Backbone, BackboneOptions
from tsbench.backbones.random_weights import random_backbone
from tsbench.data.windows import gather_contexts

LOOKBACK = 512
HORIZONS = (96, 192, 336, 720)
ROWS, ROUNDS = 32, 3


def milliseconds(backbone: Backbone, rows: torch.Tensor, horizon: int, batch: int) -> float:
    """Wall time per row."""
    started = time.perf_counter_ns()
    for first in range(0, len(rows), batch):
        backbone.predict(rows[first : first + batch], horizon)
    return (time.perf_counter_ns() - started) / 1e6 / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="weights of flame-small; those of the package unless given")
    checkpoint = parser.parse_args().checkpoint
    backbones: list[Backbone] = [
        flame.load(BackboneOptions("flame-small", checkpoint)),
        fracast.load(BackboneOptions("fracast")),
        random_backbone(BackboneOptions("chronos-bolt-tiny")),
    ]
    values = tsbench.load_dataset("demo").values.astype(np.float32)
    windows = ROWS // values.shape[1]
    starts = np.linspace(LOOKBACK, len(values), windows * (ROUNDS + 1)).astype(np.int64)
    cut = gather_contexts(values, starts, LOOKBACK)
    warm_up, *rounds = (
        torch.from_numpy(cut[first :: ROUNDS + 1].reshape(-1, LOOKBACK)) for first in range(ROUNDS + 1)
    )
    parameters = {
        "flame-small": sum(p.numel() for p in backbones[0].model.parameters()),  # type: ignore[attr-defined]
        "chronos-bolt-tiny": sum(p.numel() for p in backbones[2].model.parameters()),  # type: ignore[attr-defined]
    }
    print(
        f"{ROUNDS} rounds of {len(warm_up)} rows, medians in ms/query; CPU threads: {torch.get_num_threads()}"
    )
    for name, count in parameters.items():
        print(f"{name}: {count:,} parameters")
    print(f"{'H':>4} {'batch':>5} " + " ".join(f"{backbone.name:>18}" for backbone in backbones))
    for horizon in HORIZONS:
        for batch in (1, len(warm_up)):
            figures = []
            for backbone in backbones:
                milliseconds(backbone, warm_up[:batch], horizon, batch)
                figures.append(median(milliseconds(backbone, rows, horizon, batch) for rows in rounds))
            print(f"{horizon:>4} {batch:>5} " + " ".join(f"{figure:>18.2f}" for figure in figures))


if __name__ == "__main__":
    main()

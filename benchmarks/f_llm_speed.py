"""Milliseconds per query of F-LLM's closed and open loop, on the same rows in one run.

Usage: OMP_NUM_THREADS=1 python benchmarks/f_llm_speed.py [--backbone smollm2] [--layers 8]

A query is one context of 672 steps, forecast one at a time and in batches, in patches of 96. Embedding,
de-embedding and observer have random weights: speed does not depend on their values. Both loops are timed in
turn, in changing order; the cost of feedback is the median of the rounds' ratios, with their quartiles.
"""

import argparse
import time

import numpy as np
import torch
from tabulate import tabulate

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.language_model import load
from tsbench.bench.provenance import preferred_precision
from tsbench.methods.f_llm import FLlmForecaster
from tsbench.models.f_llm.observer import Observer
from tsbench.models.f_llm.plant import FrozenDecoder, Plant, PlantConfig
from tsbench.models.f_llm.rollout import RollOutConfig

HORIZONS, CONTEXTS = (96, 720), ("sliding", "growing")
ROWS, ROUNDS = 16, 5


def milliseconds(forecaster: FLlmForecaster, rows: torch.Tensor, horizon: int, batch: int) -> float:
    """Wall time per row."""
    started = time.perf_counter_ns()
    for part in torch.split(rows, batch):
        forecaster.predict(part, horizon)
    return (time.perf_counter_ns() - started) / 1e6 / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    precision = preferred_precision("cpu")
    language = load(BackboneOptions(arguments.backbone, layers=arguments.layers, precision=precision))
    torch.manual_seed(0)
    config = PlantConfig()
    plant = Plant(config, FrozenDecoder(language.module)).requires_grad_(False)
    observer = Observer(config.patch)
    observer.linear.weight.data.normal_(std=1e-3)
    rows = torch.randn(ROWS, config.lookback)
    table = []
    for context in CONTEXTS:
        rolling = RollOutConfig(context)
        opened, closed = (FLlmForecaster(plant, each, rolling) for each in (None, observer))
        for horizon in HORIZONS:
            for batch in (1, ROWS):
                times = np.empty((ROUNDS + 1, 2))
                for turn in range(ROUNDS + 1):  # the first warms up
                    order = ((0, opened), (1, closed))[:: 1 if turn % 2 else -1]
                    for place, forecaster in order:
                        times[turn, place] = milliseconds(forecaster, rows, horizon, batch)
                opened_ms, closed_ms = np.median(times[1:], axis=0)
                middle, low, high = np.percentile(100 * (times[1:, 1] / times[1:, 0] - 1), [50, 25, 75])
                cost = f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"
                table.append([context, horizon, batch, f"{opened_ms:.1f}", f"{closed_ms:.1f}", cost])
    print(f"{arguments.backbone}, {language.module.config.num_hidden_layers} layers, {precision}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {ROUNDS} rounds of {ROWS} rows")
    headers = ["context", "H", "batch", "open, ms/query", "closed, ms/query", "feedback costs"]
    print(tabulate(table, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

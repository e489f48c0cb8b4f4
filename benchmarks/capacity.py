"""What the cells of each suite would cost at profile `paper`, from counted operations; nothing is run.

Usage: python benchmarks/capacity.py [--tflops 100]

Operations of one query (lookback 512) are counted by PyTorch's FlopCounterMode on networks of the published
shapes with random weights; bytes are those of the forecast cache. A forecast 720 steps ahead serves all
horizons, so each backbone passes once over the windows that its cells need: test and validation for every
method, train windows as well for TS-Memory, LoRA and the embeddings of TS-RAG. Training counts three forward
passes per pair and 20 epochs, the authors' bound, without early stopping. Hours follow from a sustained rate
that is assumed, not measured. Backbones whose network cannot be built here without its weights (Sundial,
TimesFM, language models) and supervised networks are counted as cells, not as operations.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache

import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.random_weights import random_backbone
from tsbench.bench.grid import default_settings
from tsbench.bench.plan import absent_cells, expand
from tsbench.bench.suite import load_suite, shipped_suites
from tsbench.config import PROFILES, CellSpec
from tsbench.models.plugmem import PlugMem, PlugMemConfig

LOOKBACK, LONGEST, LEVELS, EPOCHS = 512, 720, 9, 20
SHAPES = {  # rows, channels; ETT counts the 20 months that are split
    "ETTh1": (14_400, 7),
    "ETTh2": (14_400, 7),
    "ETTm1": (57_600, 7),
    "ETTm2": (57_600, 7),
    "Weather": (52_696, 21),
    "Electricity": (26_304, 321),
    "Traffic": (17_544, 862),
    "Exchange": (7_588, 8),
}
COUNTED = ("chronos-bolt-tiny", "chronos-bolt-mini", "chronos-bolt-small", "chronos-bolt-base", "chronos-2")


def operations(work: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        work()
    return int(counter.get_total_flops())


@cache
def query(backbone: str) -> tuple[int, int]:
    """Operations of one forecast of 720 steps, and of one embedding."""
    network, context = random_backbone(BackboneOptions(backbone)), torch.zeros(1, LOOKBACK)
    return (
        operations(lambda: network.predict(context, LONGEST)),
        operations(lambda: network.embed(context)),
    )


@cache
def plugmem(horizon: int) -> int:
    """Operations of one forward pass of PlugMem base."""
    network = PlugMem(PlugMemConfig.preset("base", LOOKBACK, horizon, LEVELS))
    network.eval().requires_grad_(False)
    return operations(lambda: network(torch.zeros(1, LOOKBACK), horizon))


def windows(dataset: str) -> tuple[int, int]:
    """Queries (windows x channels) of train, and of validation and test together, about one each row."""
    rows, channels = SHAPES[dataset]
    train = int(rows * (0.6 if dataset.startswith("ETT") else 0.7))
    return (train - LOOKBACK) * channels, (rows - train) * channels


def cost(specs: Iterable[CellSpec]) -> tuple[float, float, float]:
    """Operations of forward passes and of training, and bytes of the forecast cache."""
    methods: dict[tuple[str, str], set[str]] = defaultdict(set)
    training = 0.0
    for spec in specs:
        methods[spec.backbone, spec.dataset].add(spec.method)
        pairs = windows(spec.dataset)[0]
        if spec.method == "ts-memory":
            training += 3 * EPOCHS * pairs * plugmem(spec.horizon)
        if spec.method == "lora":
            training += 3 * EPOCHS * pairs * query(spec.backbone)[0] * spec.horizon / LONGEST
    forward = size = 0.0
    for (backbone, dataset), used in methods.items():
        train, other = windows(dataset)
        forecast, embedding = query(backbone)
        trained = train if "ts-memory" in used else 0
        forward += (other + trained) * forecast + bool(used & {"ts-memory", "ts-rag"}) * train * embedding
        forward += ("lora" in used) * other * forecast
        size += (other + trained) * LEVELS * LONGEST * 4
    return forward, training, size


def table(tflops: float) -> str:
    """Markdown: one row per suite with cells that are counted."""
    rows = []
    for name in shipped_suites():
        suite = load_suite(name)
        cells = expand(suite, seeds=[0], settings=default_settings(PROFILES["paper"]), profile="paper")
        specs = {cell.spec for cell in cells}
        counted = [spec for spec in specs if spec.backbone in COUNTED and spec.dataset in SHAPES]
        forward, training, size = cost(counted)
        hours = (forward + training) / (tflops * 1e12) / 3600
        if not counted:
            continue
        total = len(specs) + absent_cells(suite).total()
        amounts = [f"{amount:,.0f}" for amount in (forward / 1e15, training / 1e15, size / 1e9)]
        rows.append([name, total, len(counted), *amounts, f"{hours:,.1f}"])
    headers = ["suite", "cells", "counted", "forward, PFLOP", "training, PFLOP at most", "cache, GB", "hours"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tflops", type=float, default=100.0, help="assumed sustained rate of one GPU")
    assumed = parser.parse_args().tflops
    print(f"Hours at an assumed {assumed:g} TFLOP/s\n\n{table(assumed)}")


if __name__ == "__main__":
    main()

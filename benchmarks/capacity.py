"""What published tables would cost at profile `paper` on one GPU and on eight, from counted operations.

Usage: python benchmarks/capacity.py [--tflops 100] [--disk-gbs 2]

The first table has the cells of each suite. The second is the whole grid: eight data sets, four horizons,
five methods (Origin, RAFT, TS-RAG, LoRA, TS-Memory), four backbones. Nothing is run.

Operations of one query (lookback 512) are counted by PyTorch's FlopCounterMode on networks of the published
shapes with random weights; bytes are those of the forecast cache. A forecast 720 steps ahead serves all
horizons, so each backbone passes once over the windows that its cells need: test and validation for every
method, train windows as well for TS-Memory, LoRA and the embeddings of TS-RAG. Training counts three forward
passes per pair and 20 epochs, the authors' bound, without early stopping. Hours follow from a sustained rate
that is assumed, not measured. In the suites, backbones whose network cannot be built without its weights and
supervised networks are counted as cells, not as operations. In the grid TimesFM is the package's network with
random weights; Sundial's is not public without its remote code and is left out.

Jobs of the grid are independent but for the base forecasts, which come first: on eight GPUs each phase takes
the longest jobs first, each to the GPU that is free first. Base forecasts of a data set are split by windows.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from heapq import heapify, heapreplace
from itertools import chain

import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from tsbench.backbones.base import Backbone, BackboneOptions
from tsbench.backbones.random_weights import random_backbone
from tsbench.backbones.timesfm import TimesFM
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
METHODS = ("origin", "raft", "ts-rag", "lora", "ts-memory")
HORIZONS = (96, 192, 336, 720)
GRID_BACKBONES = ("chronos-bolt-base", "chronos-2", "timesfm-2.5", "flame-small")
COUNTED = ("chronos-bolt-tiny", "chronos-bolt-mini", "chronos-bolt-small", "chronos-bolt-base", "chronos-2")


def operations(work: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        work()
    return int(counter.get_total_flops())


@cache
def query(backbone: str) -> tuple[int, int]:
    """Operations of one forecast of 720 steps, and of one embedding."""
    network, context = _network(backbone), torch.randn(1, LOOKBACK)
    return (
        operations(lambda: network.predict(context, LONGEST)),
        operations(lambda: network.embed(context)),
    )


def _network(backbone: str) -> Backbone:
    if backbone != "timesfm-2.5":
        return random_backbone(BackboneOptions(backbone))
    from timesfm import TimesFM_2p5_200M_torch

    model = TimesFM_2p5_200M_torch()
    network = model.model
    return TimesFM(backbone, model, "", network.o, 1024, 16_384 - LONGEST)


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


def grid_table(tflops: float, disk_gbs: float) -> str:
    """Markdown: one row per backbone of the grid and one for all; hours on one GPU and on eight."""
    jobs = {backbone: _jobs(backbone) for backbone in GRID_BACKBONES}
    every = [list(chain.from_iterable(kind)) for kind in zip(*jobs.values(), strict=True)]
    rows = [[name, *_costs(kinds, tflops, disk_gbs)] for name, kinds in (jobs | {"all": every}).items()]
    amounts = ("forward, PFLOP", "TS-Memory, PFLOP", "LoRA, PFLOP", "cache, GB", "its writing, h")
    hours = ("hours on one", "on eight", "on one without LoRA", "on eight without LoRA")
    headers = ["backbone", *amounts, *hours]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _jobs(backbone: str) -> list[list[float]]:
    """Operations of each base forecast, TS-Memory training and LoRA training, and bytes per data set."""
    forward, memories, adapters, sizes = [], [], [], []
    for dataset in SHAPES:
        specs = [
            CellSpec(method=method, backbone=backbone, dataset=dataset, horizon=horizon)
            for method in METHODS
            for horizon in HORIZONS
        ]
        passes, _, size = cost(specs)
        forward += [passes / 8] * 8
        memories += [cost([spec])[1] for spec in specs if spec.method == "ts-memory"]
        adapters += [cost([spec])[1] for spec in specs if spec.method == "lora"]
        sizes.append(size)
    return [forward, memories, adapters, sizes]


def _costs(kinds: Sequence[Sequence[float]], tflops: float, disk_gbs: float) -> list[str]:
    forward, memories, adapters, sizes = kinds
    amounts = [f"{sum(kind) / 1e15:,.0f}" for kind in (forward, memories, adapters)]
    disk = [f"{sum(sizes) / 1e9:,.0f}", f"{sum(sizes) / disk_gbs / 3.6e12:,.1f}"]
    hours = [
        f"{(makespan(forward, gpus) + makespan(trainings, gpus)) / (tflops * 3.6e15):,.1f}"
        for trainings in ([*memories, *adapters], memories)
        for gpus in (1, 8)
    ]
    return [*amounts, *disk, *hours]


def makespan(jobs: Iterable[float], workers: int) -> float:
    """When the last job ends if the longest go first, each to the worker that is free first."""
    ends = [0.0] * workers
    heapify(ends)
    for job in sorted(jobs, reverse=True):
        heapreplace(ends, ends[0] + job)
    return max(ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tflops", type=float, default=100.0, help="assumed sustained rate of one GPU")
    parser.add_argument("--disk-gbs", type=float, default=2.0, help="assumed GB/s written to disk")
    assumed = parser.parse_args()
    print(f"Hours at an assumed {assumed.tflops:g} TFLOP/s, {assumed.disk_gbs:g} GB/s written to disk")
    print(f"\n{table(assumed.tflops)}\n\n{grid_table(assumed.tflops, assumed.disk_gbs)}")


if __name__ == "__main__":
    main()

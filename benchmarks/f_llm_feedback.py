"""How much of the open loop's error a linear observer of F-LLM could correct, and on which split.

Usage: TSBENCH_MIRROR=DIR python benchmarks/f_llm_feedback.py --dataset ETTh1 [--layers 8] [--seed 0]

Trains the plant of the cell (or finds it trained), rolls it out without feedback over windows x channels
spread evenly over each split, and fits observers of the first roll-out step in closed form on the train rows:
the mean residual (bias alone), and ridge regressions of the residual on the last w = 4 residuals of the
lookback, with and without intercept, the ridge chosen on validation rows. Everything is in units of the
context's standard deviation, as the observer's inputs are. Prints, per split, the share of the mean squared
error that each removes; a negative share is an error added. "own bias" is fitted on the split itself.
"""

import argparse
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from tsbench.bench.provenance import preferred_precision
from tsbench.bench.runner import Bench
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, FLlmOptions
from tsbench.data.paths import home
from tsbench.data.windows import evenly_spaced, gather_contexts, window_grid
from tsbench.methods.f_llm import FLlmForecaster, fit
from tsbench.methods.task import Task
from tsbench.models.f_llm.plant import Moments, Plant, split_patches

WINDOW = 4
RIDGES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
Samples = tuple[NDArray[np.float64], NDArray[np.float64]]


@torch.no_grad()
def samples(plant: Plant, task: Task, split: Any, rows: int) -> Samples:
    """The last w residuals of the lookback [n, w * P] and the residual of the first forecast patch [n, P]."""
    patch = plant.config.patch
    grid = window_grid(task.borders, split, task.spec.lookback, patch)
    places = evenly_spaced(len(grid.starts) * task.channels, rows)
    windows, channels = np.divmod(places, task.channels)
    both = gather_contexts(task.scaled, grid.starts[windows] + patch, grid.lookback + patch)
    values = torch.from_numpy(both[np.arange(len(places)), channels])
    seen, due = [], []
    for part in torch.split(values, 128):
        context, truth = part[:, :-patch], part[:, -patch:]
        moments = Moments.of(split_patches(context, plant.config))
        errors = (torch.cat([context[:, patch:], truth], dim=1) - plant(context).flatten(1)).unsqueeze(1)
        residuals = (errors / moments.std).squeeze(1).unflatten(1, (-1, patch))
        seen.append(residuals[:, -1 - WINDOW : -1].flatten(1))
        due.append(residuals[:, -1])
    return torch.cat(seen).double().numpy(), torch.cat(due).double().numpy()


def ridge(data: Samples, penalty: float, intercept: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [w * P, P] and intercept [P] that minimise squared error + penalty * n * squared weights."""
    inputs, targets = data
    center = inputs.mean(0), targets.mean(0)
    if not intercept:
        center = np.zeros_like(center[0]), np.zeros_like(center[1])
    x, y = inputs - center[0], targets - center[1]
    weights = np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(x.shape[1]), x.T @ y)
    return weights, center[1] - center[0] @ weights


def removed(data: Samples, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> float:
    """Share of the mean squared residual that a correction removes."""
    inputs, targets = data
    return float(1 - np.mean((targets - inputs @ weights - bias) ** 2) / np.mean(targets**2))


def rows(splits: dict[str, Samples]) -> list[list[str]]:
    """One row per observer."""
    train, val = splits["train"], splits["val"]
    nothing = np.zeros((train[0].shape[1], train[1].shape[1]))

    def row(name: str, fitted: tuple[NDArray[np.float64], NDArray[np.float64]]) -> list[str]:
        return [name, *(f"{100 * removed(data, *fitted):+.1f} %" for data in splits.values())]

    table = [row("bias alone", (nothing, train[1].mean(0)))]
    for intercept in (True, False):
        fits = {penalty: ridge(train, penalty, intercept) for penalty in RIDGES}
        best = max(RIDGES, key=lambda penalty: removed(val, *fits[penalty]))
        name = f"ridge {best:g}, {'with' if intercept else 'without'} intercept"
        table.append(row(name, fits[best]))
    own = [f"{100 * removed(data, nothing, data[1].mean(0)):+.1f} %" for data in splits.values()]
    return [*table, ["own bias", *own]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", nargs="+", default=["ETTh1"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bench = Bench(ResultsStore(home() / "none"))
    for dataset in arguments.dataset:
        spec = CellSpec(
            method="f-llm",
            backbone="smollm2",
            dataset=dataset,
            horizon=96,
            lookback=672,
            seed=arguments.seed,
            precision=preferred_precision("cpu"),
            f_llm=FLlmOptions(form="open-loop", layers=arguments.layers),
        )
        task = bench.task(spec)
        forecaster: Any = fit(task, bench.frozen(spec, task)).forecaster
        assert isinstance(forecaster, FLlmForecaster)
        plant = forecaster.model
        assert isinstance(plant, Plant)
        splits = {name: samples(plant, task, name, arguments.rows) for name in ("train", "val", "test")}
        print(f"{dataset}, {len(splits['test'][0])} windows x channels per split, seed {arguments.seed}")
        print(tabulate(rows(splits), ["observer", *splits], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

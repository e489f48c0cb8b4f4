"""How much of the open loop's error a linear observer of F-LLM could correct, and on which split.

Usage: TSBENCH_MIRROR=DIR python benchmarks/f_llm_feedback.py --dataset ETTh1 [--layers 8] [--seed 0]

Trains the plant of the cell (or finds it trained), rolls it out without feedback over windows x channels
spread evenly over each split, and fits observers of the first roll-out step in closed form on the train rows:
the mean residual (bias alone), and ridge regressions of the residual on the last w = 4 residuals of the
lookback, with and without intercept, the ridge chosen on validation rows. As in the method, residuals are in
units of the context's standard deviation; as in its loss, a row counts by the square of that deviation, so
that errors are those of the standardised data. Prints, per split, the share of the mean squared error that
each removes; a negative share is an error added. "own bias" is fitted on the split itself.
"""

import argparse
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Samples:
    """Residuals of n windows x channels.

    Attributes:
        seen: Last w residuals of the lookback, [n, w * P], in units of the context's standard deviation.
        due: Residual of the first forecast patch, [n, P], in the same units.
        weight: Square of that deviation, [n, 1].
    """

    seen: NDArray[np.float64]
    due: NDArray[np.float64]
    weight: NDArray[np.float64]


@torch.no_grad()
def samples(plant: Plant, task: Task, split: Any, rows: int) -> Samples:
    """Residuals of the plant on rows spread evenly over a split."""
    patch = plant.config.patch
    grid = window_grid(task.borders, split, task.spec.lookback, patch)
    places = evenly_spaced(len(grid.starts) * task.channels, rows)
    windows, channels = np.divmod(places, task.channels)
    both = gather_contexts(task.scaled, grid.starts[windows] + patch, grid.lookback + patch)
    values = torch.from_numpy(both[np.arange(len(places)), channels])
    seen, due, weight = [], [], []
    for part in torch.split(values, 128):
        context, truth = part[:, :-patch], part[:, -patch:]
        moments = Moments.of(split_patches(context, plant.config))
        errors = (torch.cat([context[:, patch:], truth], dim=1) - plant(context).flatten(1)).unsqueeze(1)
        residuals = (errors / moments.std).squeeze(1).unflatten(1, (-1, patch))
        seen.append(residuals[:, -1 - WINDOW : -1].flatten(1))
        due.append(residuals[:, -1])
        weight.append(moments.std[:, 0].square())
    return Samples(*(torch.cat(parts).double().numpy() for parts in (seen, due, weight)))


def ridge(data: Samples, penalty: float, intercept: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [w * P, P] and intercept [P] that minimise mean squared error + penalty * squared weights."""
    share = data.weight / data.weight.sum()
    center = (share * data.seen).sum(0), (share * data.due).sum(0)
    if not intercept:
        center = np.zeros_like(center[0]), np.zeros_like(center[1])
    x, y = data.seen - center[0], data.due - center[1]
    weights = np.linalg.solve((share * x).T @ x + penalty * np.eye(x.shape[1]), (share * x).T @ y)
    return weights, center[1] - center[0] @ weights


def bias(data: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An observer that knows the mean residual alone."""
    weights = np.zeros((data.seen.shape[1], data.due.shape[1]))
    return weights, np.average(data.due, axis=0, weights=data.weight[:, 0])


def removed(data: Samples, weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> float:
    """Share of the mean squared residual that a correction removes."""
    left = data.weight * (data.due - data.seen @ weights - intercept) ** 2
    return float(1 - left.sum() / (data.weight * data.due**2).sum())


def rows(splits: dict[str, Samples]) -> list[list[str]]:
    """One row per observer."""
    train, val = splits["train"], splits["val"]

    def row(name: str, *shares: float) -> list[str]:
        return [name, *(f"{100 * share:+.1f} %" for share in shares)]

    table = [row("bias alone", *(removed(data, *bias(train)) for data in splits.values()))]
    for intercept in (True, False):
        fits = {penalty: ridge(train, penalty, intercept) for penalty in RIDGES}
        best = max(RIDGES, key=lambda penalty: removed(val, *fits[penalty]))
        name = f"ridge {best:g}, {'with' if intercept else 'without'} intercept"
        table.append(row(name, *(removed(data, *fits[best]) for data in splits.values())))
    return [*table, row("own bias", *(removed(data, *bias(data)) for data in splits.values()))]


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
        print(f"{dataset}, {len(splits['test'].due)} windows x channels per split, seed {arguments.seed}")
        print(tabulate(rows(splits), ["observer", *splits], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

"""Cells of RAFT and TS-RAG on a short series, over a backbone that repeats the last day."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.backbones.naive import SeasonalNaive
from tsbench.config import PROFILES, CellSpec
from tsbench.data.dataset import Dataset
from tsbench.data.splits import SplitRule
from tsbench.data.windows import gather_contexts
from tsbench.methods.fusion import FusedForecaster
from tsbench.methods.online_retrieval import RetrievalForecaster
from tsbench.methods.retrieval_fusion import fit_raft, fit_ts_rag
from tsbench.methods.task import Fitted, Task, make_task

ROWS, CHANNELS, LOOKBACK, HORIZON = 700, 2, 27, 6
VAL, TEST = 490, 560
DECILES = tuple(j / 10 for j in range(1, 10))
FITS = {"raft": fit_raft, "ts-rag": fit_ts_rag}
PROFILE = PROFILES["quick"].model_copy(
    update={"max_val_values": 200, "max_stop_values": 100, "max_knowledge_rows": 300}
)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Embedding(SeasonalNaive):
    """Repeats the last day, and embeds a context as the steps from value to value."""

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        return context.diff(dim=1)[:, -12:]


@dataclass(frozen=True)
class PointOnly(Embedding):
    quantile_levels = ()  # type: ignore[misc]


@dataclass(frozen=True)
class Cell:
    method: str
    task: Task
    frozen: FrozenBackbone

    def fit(self) -> Fitted:
        return FITS[self.method](self.task, self.frozen)

    def contexts(self, starts: NDArray[np.int64]) -> torch.Tensor:
        """Whole windows [w * C, L], channel by channel within each."""
        return torch.from_numpy(gather_contexts(self.task.scaled, starts, LOOKBACK)).flatten(0, 1)


def series() -> Array:
    rng = np.random.default_rng(12)
    seasons = np.sin(2 * np.pi * np.arange(ROWS)[:, None] / 24 + np.array([0, 1]))
    walk = rng.standard_normal((ROWS, CHANNELS)).cumsum(0)
    return 30 + 5 * seasons + rng.standard_normal((ROWS, CHANNELS)) + walk


VALUES = series()


def prepare(
    method: str = "raft", values: Array = VALUES, backbone: SeasonalNaive | None = None, **profile: Any
) -> Cell:
    times = np.datetime64("2020-01-01", "s") + np.arange(len(values)) * np.timedelta64(1, "h")
    split = SplitRule("rows", VAL, TEST - VAL, ROWS - TEST)
    dataset = Dataset("toy", values, times, ("a", "b"), "1h", 24, split, (HORIZON,), "0" * 64)
    spec = CellSpec(method=method, backbone="toy", dataset="toy", horizon=HORIZON, lookback=LOOKBACK)
    task = make_task(spec, PROFILE.model_copy(update=profile), dataset, Path("unused"), lambda line: None)
    frozen = FrozenBackbone(backbone or Embedding("toy", season=24), task.scaled, LOOKBACK, None, 0)
    return Cell(method, task, frozen)


def parts(fitted: Fitted) -> tuple[FusedForecaster, RetrievalForecaster]:
    assert isinstance(fitted.forecaster, FusedForecaster)
    assert isinstance(fitted.forecaster.companion, RetrievalForecaster)
    return fitted.forecaster, fitted.forecaster.companion


@cache
def fitted_cell(method: str) -> tuple[Cell, Fitted]:
    cell = prepare(method)
    return cell, cell.fit()


def replaced(first: int) -> Array:
    values = VALUES.copy()
    values[first:] = 1e3 * np.random.default_rng(9).standard_normal(values[first:].shape)
    return values


def train_starts(companion: RetrievalForecaster) -> NDArray[np.int64]:
    return companion.memory.base.starts

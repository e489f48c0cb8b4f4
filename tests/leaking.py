"""Methods of another package that leak, each in its own way, as entry points name them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.methods.fusion import FusedForecaster, fusion_curve
from tsbench.methods.task import Fitted, Task
from tsbench.methods.ts_memory.retrieval import KnowledgeBase


@dataclass(frozen=True, eq=False)
class Constant:
    """Forecasts zero at every level."""

    quantile_levels: tuple[float, ...]
    name: str = "zero"
    rollout: str = "direct"

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        return torch.zeros(len(context), len(self.quantile_levels), horizon)


def fit_tuned_on_test(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Chooses the fusion weight on test windows."""
    companion = Constant(frozen.backbone.quantile_levels)
    curve = fusion_curve(companion, frozen, task.test_windows().starts, task.spec.horizon)
    return Fitted(FusedForecaster(frozen.backbone, companion, curve.best("mae")))


def fit_tuned_on_val(task: Task, frozen: FrozenBackbone) -> Fitted:
    """The same, honestly."""
    companion = Constant(frozen.backbone.quantile_levels)
    starts = task.windows("val", task.profile.max_val_values).starts
    curve = fusion_curve(companion, frozen, starts, task.spec.horizon)
    return Fitted(FusedForecaster(frozen.backbone, companion, curve.best("mae")), {}, curve)


@dataclass(frozen=True, eq=False)
class LookUp:
    """Finds a context among all rows and returns what followed it."""

    scaled: NDArray[np.float32]
    quantile_levels: tuple[float, ...]
    name: str = "look-up"
    rollout: str = "direct"

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        rows, steps = context.shape
        contexts = np.lib.stride_tricks.sliding_window_view(self.scaled[:-horizon], steps, axis=0)
        futures = np.lib.stride_tricks.sliding_window_view(self.scaled[steps:], horizon, axis=0)
        flat, after = contexts.reshape(-1, steps), futures.reshape(-1, horizon)
        found = [int(np.abs(flat - row.numpy()).sum(axis=1).argmin()) for row in context]
        answer = torch.from_numpy(np.ascontiguousarray(after[found]))
        return answer[:, None].expand(rows, len(self.quantile_levels), horizon).clone()


def fit_look_up(task: Task, frozen: FrozenBackbone) -> Fitted:
    return Fitted(LookUp(task.scaled, frozen.backbone.quantile_levels))


@dataclass(frozen=True, eq=False)
class WithCorpus:
    """The backbone's forecast, with a knowledge base beside it."""

    base: KnowledgeBase
    backbone: object
    quantile_levels: tuple[float, ...]
    name: str = "with-corpus"
    rollout: str = "direct"

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        return self.backbone.predict(context, horizon)  # type: ignore[attr-defined, no-any-return]


def fit_greedy_corpus(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Stores windows that begin in the train rows and may end beyond them."""
    starts = np.arange(task.spec.lookback, task.borders.train[1], 25)
    embeddings = np.zeros((len(starts), task.channels, 1), dtype=np.float32)
    base = KnowledgeBase(task.scaled, starts, embeddings, task.spec.lookback, task.spec.horizon)
    return Fitted(WithCorpus(base, frozen.backbone, frozen.backbone.quantile_levels))


@dataclass(frozen=True, eq=False)
class BatchMean(Constant):
    """Forecasts the mean of the whole batch, which holds later contexts."""

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        return super().predict(context, horizon) + context.mean()


def fit_batch_mean(task: Task, frozen: FrozenBackbone) -> Fitted:
    return Fitted(BatchMean(frozen.backbone.quantile_levels))


@dataclass(frozen=True, eq=False)
class Shifted(Constant):
    """Forecasts a number."""

    level: float = 0.0

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        return super().predict(context, horizon) + self.level


def fit_random(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Another forecast at every fit, without looking at anything."""
    level = float(np.random.default_rng().normal())
    return Fitted(replace(Shifted(frozen.backbone.quantile_levels), level=level))

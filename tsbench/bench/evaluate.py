"""Streaming evaluation: every window is forecast, scored and forgotten."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tsbench.backbones.base import Forecaster
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.data.windows import WindowGrid, gather_targets
from tsbench.methods.fusion import FusedForecaster, fuse, predict_windows
from tsbench.metrics.fusion import FusionCurve, FusionScores
from tsbench.metrics.streaming import ForecastScores, Scores


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one forecaster on one grid of windows.

    Attributes:
        scores: Everything the accumulator counts.
        curve: Scores for every fusion weight; None where nothing is fused.
    """

    scores: Scores
    curve: FusionScores | None


def evaluate(forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid) -> Evaluation:
    """Score a forecaster on a grid of windows in constant memory.

    Base forecasts come from the cache of the frozen backbone where the forecaster is that backbone or is
    fused with it. Sums are accumulated in float64 over windows, steps and channels and divided once, so
    the result depends neither on the batch size nor on the order of the windows.

    Args:
        forecaster: What to score.
        frozen: The backbone over the scaled data set, with its cache.
        grid: Which windows.
    """
    scores = ForecastScores(forecaster.quantile_levels, frozen.scaled.shape[1], grid.horizon)
    curve = FusionCurve(forecaster.quantile_levels) if isinstance(forecaster, FusedForecaster) else None
    for part, forecast, parts in _forecasts(forecaster, frozen, grid):
        target = torch.from_numpy(gather_targets(frozen.scaled, grid.starts[part], grid.horizon))
        scores.update(forecast, target)
        if curve is not None and parts is not None:
            curve.update(*parts, target)
    return Evaluation(scores.result(), curve.result() if curve is not None else None)


def _forecasts(
    forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid
) -> Iterator[tuple[slice, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]]:
    """Chunks of windows with their forecasts [w, C, Q, H] and, where fused, both parts."""
    if isinstance(forecaster, FusedForecaster):
        if forecaster.base is not frozen.backbone:
            raise ValueError("the forecaster is fused with another backbone than the frozen one")
        for part, base in frozen.forecasts(grid.starts, grid.horizon):
            companion = predict_windows(forecaster.companion, frozen, grid.starts[part], grid.horizon)
            yield part, fuse(base, companion, forecaster.alpha), (base, companion)
    elif forecaster is frozen.backbone:
        for part, base in frozen.forecasts(grid.starts, grid.horizon):
            yield part, base, None
    else:
        for part in frozen.chunks(len(grid.starts)):
            yield part, predict_windows(forecaster, frozen, grid.starts[part], grid.horizon), None

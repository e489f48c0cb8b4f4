"""Streaming evaluation: every window is forecast, scored and forgotten."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.base import Forecaster, SampleForecaster, path_sampler
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.data.windows import WindowGrid, evenly_spaced, gather_contexts, gather_targets
from tsbench.methods.fusion import FusedForecaster, fuse, predict_windows
from tsbench.metrics.fusion import FusionCurve, FusionScores
from tsbench.metrics.samples import SampleScores, score_samples
from tsbench.metrics.streaming import ForecastScores, Scores, Units

# Sampled or context values held at once: 64 MB, a few times that while they are sorted.
_VALUES_AT_ONCE = 2**24

# Forecasts kept to look at; what they take on disk grows with these values.
_SAMPLE_WINDOWS, _SAMPLE_CHANNELS, _SAMPLE_CONTEXT = 4, 3, 192
_SAMPLE_VALUES = 25_000


@dataclass(frozen=True, eq=False)
class Samples:
    """Forecasts of a few windows and channels, evenly spaced.

    Attributes:
        windows: [W'] int64, places in the grid, ascending.
        channels: [C'] int64, places in the data, ascending.
        context: Steps before the target to show with them.
        forecast: [W', C', Q, H] float32.
    """

    windows: NDArray[np.int64]
    channels: NDArray[np.int64]
    context: int
    forecast: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one forecaster on one grid of windows.

    Attributes:
        scores: Everything the accumulator counts.
        curve: Scores for every fusion weight; None where nothing is fused.
        samples: A few of the forecasts.
    """

    scores: Scores
    curve: FusionScores | None
    samples: Samples


def evaluate(
    forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid, units: Units | None = None
) -> Evaluation:
    """Score a forecaster on a grid of windows in constant memory.

    Base forecasts come from the cache of the frozen backbone where the forecaster is that backbone or is
    fused with it. Sums are accumulated in float64 over windows, steps and channels and divided once, so
    the result depends neither on the batch size nor on the order of the windows.

    Args:
        forecaster: What to score.
        frozen: The backbone over the scaled data set, with its cache.
        grid: Which windows.
        units: The scaler of the data set; without it, scores in data units are NaN.
    """
    with frozen.stages("score", len(grid.starts) * frozen.scaled.shape[1]):
        return _evaluate(forecaster, frozen, grid, units)


def _evaluate(
    forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid, units: Units | None
) -> Evaluation:
    scores = ForecastScores(forecaster.quantile_levels, frozen.scaled.shape[1], grid.horizon, units)
    curve = FusionCurve(forecaster.quantile_levels) if isinstance(forecaster, FusedForecaster) else None
    windows, channels, context = _sample_places(forecaster, frozen, grid)
    samples = []
    for part, forecast, parts in forecast_grid(forecaster, frozen, grid):
        target = torch.from_numpy(gather_targets(frozen.scaled, grid.starts[part], grid.horizon))
        scores.update(forecast, target)
        if curve is not None and parts is not None:
            curve.update(*parts, target)
        here = windows[(part.start <= windows) & (windows < part.stop)] - part.start
        samples.append(forecast[here][:, channels].cpu().numpy())
    return Evaluation(
        scores.result(),
        curve.result() if curve is not None else None,
        Samples(windows, channels, context, np.concatenate(samples)),
    )


def _sample_places(
    forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Windows [W'], channels [C'] and context steps to keep: fewer channels, then windows, of a long H."""
    context = min(grid.lookback, 2 * grid.horizon, _SAMPLE_CONTEXT)
    each = (max(1, len(forecaster.quantile_levels)) + 1) * grid.horizon + context
    pairs = max(1, _SAMPLE_VALUES // each)
    windows = evenly_spaced(len(grid.starts), min(_SAMPLE_WINDOWS, pairs))
    channels = evenly_spaced(frozen.scaled.shape[1], min(_SAMPLE_CHANNELS, pairs // len(windows)))
    return windows, channels, context


def evaluate_samples(
    forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid, n: int, seed: int
) -> SampleScores:
    """Draw and score sampled paths on a grid of windows in constant memory.

    The paths repeat exactly on one kind of device. They are drawn chunk by chunk, each chunk from a seed of
    its own, so other windows or another number of paths draw other ones.

    Args:
        forecaster: What draws.
        frozen: Gives the scaled data and the lookback.
        grid: Which windows.
        n: Paths per window and channel, 2 or more.
        seed: Of the draws.

    Returns:
        Scores in standardised units.

    Raises:
        TsbenchError: The forecaster draws no paths, or none of that length.
    """
    return score_samples(_paths(path_sampler(forecaster, grid.horizon), frozen, grid, n, seed))


def _paths(
    forecaster: SampleForecaster, frozen: FrozenBackbone, grid: WindowGrid, n: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Paths [R, n, H] and targets [R, H] of consecutive windows x channels."""
    rows = max(1, _VALUES_AT_ONCE // max(n * grid.horizon, frozen.lookback))
    windows = max(1, rows // frozen.scaled.shape[1])
    for first in range(0, len(grid.starts), windows):
        starts = grid.starts[first : first + windows]
        context = torch.from_numpy(gather_contexts(frozen.scaled, starts, frozen.lookback)).flatten(0, 1)
        target = torch.from_numpy(gather_targets(frozen.scaled, starts, grid.horizon)).flatten(0, 1)
        chunks = zip(torch.split(context, rows), torch.split(target, rows), strict=True)
        for place, (contexts, targets) in enumerate(chunks):
            own_seed = int(np.random.SeedSequence((seed, first, place)).generate_state(1)[0])
            yield forecaster.sample(contexts, grid.horizon, n, own_seed), targets


def forecast_grid(
    forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid
) -> Iterator[tuple[slice, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]]:
    """Forecast a grid of windows chunk by chunk, as `evaluate` scores them.

    Args:
        forecaster: What forecasts.
        frozen: The backbone over the scaled data set, with its cache.
        grid: Which windows.

    Yields:
        The slice of `grid.starts`, its forecasts [w, C, Q, H] float32 on the CPU and, where two forecasters
        are fused, those of both.

    Raises:
        ValueError: The forecaster is fused with another backbone.
    """
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
        values = max(1, len(forecaster.quantile_levels)) * grid.horizon
        for part in frozen.chunks(len(grid.starts), values):
            yield part, predict_windows(forecaster, frozen, grid.starts[part], grid.horizon), None

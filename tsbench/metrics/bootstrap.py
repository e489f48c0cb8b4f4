"""How far a mean over overlapping windows could have come out differently: the moving-block bootstrap."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "disjoint_block", "median_interval", "moving_block_weights", "relative_change"]

_DRAWS = 2_000
_SEED = 0
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the bounds are NaN where there are too few blocks for one."""

    value: float
    low: float
    high: float


def disjoint_block(starts: NDArray[np.int64], horizon: int) -> int:
    """Smallest number of successive windows such that two so far apart share no target step.

    Args:
        starts: [W] first target rows, ascending.
        horizon: Target steps H.

    Returns:
        Block length l in windows; W where any two windows share a step.
    """
    apart = (block for block in range(1, len(starts)) if (starts[block:] - starts[:-block]).min() >= horizon)
    return next(apart, len(starts))


def moving_block_weights(windows: int, block: int) -> NDArray[np.float64]:
    """How often each window is drawn in each resample, as shares.

    A resample puts ceil(W / l) blocks of l successive windows end to end, drawn with replacement, and cuts
    them to W. The draws are the same at every call, so resampled means of several forecasts are paired.

    Args:
        windows: W, in time order.
        block: Windows in a block, l; 1 = the ordinary bootstrap.

    Returns:
        [2000, W] float64, rows summing to 1; [1, W] of NaN where W < 2 l.

    Source: Künsch (1989), doi:10.1214/aos/1176347265.
    """
    if windows < 2 * block:
        return np.full((1, windows), math.nan)
    generator = np.random.default_rng(_SEED)
    first = generator.integers(0, windows - block + 1, (_DRAWS, -(-windows // block)))
    drawn = (first[:, :, None] + np.arange(block)).reshape(_DRAWS, -1)[:, :windows]
    return np.stack([np.bincount(row, minlength=windows) for row in drawn]) / windows


def median_interval(values: NDArray[np.floating]) -> Interval:
    """Median of independent readings, with the 95 % interval of the bootstrap.

    Args:
        values: [N] readings; the bounds are NaN for a single one.
    """
    value = float(np.median(values))
    if len(values) < 2:
        return Interval(value, math.nan, math.nan)
    drawn = np.random.default_rng(_SEED).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.quantile(np.median(np.asarray(values)[drawn], axis=1), _TAILS)
    return Interval(value, float(low), float(high))


def relative_change(errors: NDArray[np.floating], reference: NDArray[np.floating], block: int) -> Interval:
    """Change of a mean error against a reference's on the same windows, in percent; negative is better.

    Args:
        errors: [W], windows in time order.
        reference: [W], the same windows.
        block: Windows in a block of the bootstrap.

    Returns:
        100 (mean(errors) / mean(reference) - 1) with the 2.5 % and 97.5 % quantiles of the resamples.
    """
    weights = moving_block_weights(len(errors), block)

    def change(mean: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
        return 100 * (mean / other - 1)

    ours, theirs = np.asarray(errors, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    low, high = np.quantile(change(weights @ ours, weights @ theirs), _TAILS)
    return Interval(float(change(ours.mean(), theirs.mean())), float(low), float(high))

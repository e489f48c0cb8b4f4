"""How far a mean over overlapping windows could have come out differently: the moving-block bootstrap."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Interval",
    "disjoint_block",
    "geometric_skill",
    "median_interval",
    "moving_block_weights",
    "nested_mean",
    "relative_change",
    "resampled_changes",
]

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


@lru_cache(maxsize=1)  # methods are compared on the same windows, one after the other
def moving_block_weights(windows: int, block: int) -> NDArray[np.float64]:
    """How often each window is drawn in each resample, as shares.

    A resample puts ceil(W / l) blocks of l successive windows end to end, drawn with replacement, and cuts
    them to W. The draws are the same at every call, so resampled means of several forecasts are paired.

    Args:
        windows: W, in time order.
        block: Windows in a block, l; 1 = the ordinary bootstrap.

    Returns:
        [2000, W] float64, read-only, rows summing to 1; [1, W] of NaN where W < 2 l.

    Source: Künsch (1989), doi:10.1214/aos/1176347265.
    """
    if windows < 2 * block:
        return np.full((1, windows), math.nan)
    generator = np.random.default_rng(_SEED)
    first = generator.integers(0, windows - block + 1, (_DRAWS, -(-windows // block)))
    drawn = (first[:, :, None] + np.arange(block)).reshape(_DRAWS, -1)[:, :windows]
    weights = np.stack([np.bincount(row, minlength=windows) for row in drawn]) / windows
    weights.setflags(write=False)
    return weights


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


def resampled_changes(
    errors: NDArray[np.floating], reference: NDArray[np.floating], block: int
) -> NDArray[np.float64]:
    """Change of a mean error in every resample of the windows, in percent.

    Args:
        errors: [W], windows in time order.
        reference: [W], the same windows.
        block: Windows in a block of the bootstrap.

    Returns:
        [2000] float64, NaN where W < 2 l.
    """
    weights = moving_block_weights(len(errors), block)
    ours, theirs = (weights @ np.asarray(values, dtype=np.float64) for values in (errors, reference))
    return np.broadcast_to(100 * (ours / theirs - 1), _DRAWS)


def relative_change(errors: NDArray[np.floating], reference: NDArray[np.floating], block: int) -> Interval:
    """Change of a mean error against a reference's on the same windows, in percent; negative is better.

    Args:
        errors: [W], windows in time order.
        reference: [W], the same windows.
        block: Windows in a block of the bootstrap.

    Returns:
        100 (mean(errors) / mean(reference) - 1) with the 2.5 % and 97.5 % quantiles of the resamples.
    """
    value = 100 * (np.mean(errors, dtype=np.float64) / np.mean(reference, dtype=np.float64) - 1)
    low, high = np.quantile(resampled_changes(errors, reference, block), _TAILS)
    return Interval(float(value), float(low), float(high))


def nested_mean(values: NDArray[np.floating], resampled: NDArray[np.floating]) -> Interval:
    """Mean over data sets, with the interval of resampling data sets and, in each, its windows.

    A resample draws as many data sets as there are, with replacement, and for each draw one of its own
    resamples, independently: other data sets might have been chosen, and other test windows.

    Args:
        values: [D], one per data set.
        resampled: [D, R], the same in R resamples of the windows.

    Returns:
        The mean; its bounds are NaN for a single data set, or where a resample is NaN.
    """
    value, sets = float(np.mean(values)), len(values)
    if sets < 2:
        return Interval(value, math.nan, math.nan)
    generator = np.random.default_rng(_SEED)
    drawn = generator.integers(0, sets, (_DRAWS, sets))
    inner = generator.integers(0, resampled.shape[1], (_DRAWS, sets))
    low, high = np.quantile(np.asarray(resampled)[drawn, inner].mean(axis=1), _TAILS)
    return Interval(value, float(low), float(high))


def geometric_skill(ratios: NDArray[np.floating]) -> Interval:
    """Skill over data sets in percent: 100 (1 - geometric mean of the error ratios); positive is better.

    Args:
        ratios: [D] error over that of the reference forecast, one per data set.

    Returns:
        The skill, with the interval of the bootstrap over data sets; NaN bounds for a single one.
    """
    logarithms = np.log(np.asarray(ratios, dtype=np.float64))
    mean = nested_mean(logarithms, logarithms[:, None])
    value, high, low = (100 * (1 - math.exp(bound)) for bound in (mean.value, mean.low, mean.high))
    return Interval(value, low, high)

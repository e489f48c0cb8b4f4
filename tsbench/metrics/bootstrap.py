"""How far a figure could have come out differently: the bootstrap over readings, blocks and data sets."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Interval",
    "geometric_skill",
    "median_interval",
    "moving_block_weights",
    "nested_mean",
]

DRAWS = 2_000
_SEED = 0
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the bounds are NaN where there are too few blocks for one."""

    value: float
    low: float
    high: float


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
    first = generator.integers(0, windows - block + 1, (DRAWS, -(-windows // block)))
    drawn = (first[:, :, None] + np.arange(block)).reshape(DRAWS, -1)[:, :windows]
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
    drawn = np.random.default_rng(_SEED).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(np.median(np.asarray(values)[drawn], axis=1), _TAILS)
    return Interval(value, float(low), float(high))


def nested_mean(values: NDArray[np.floating], draws: NDArray[np.floating]) -> Interval:
    """Mean over data sets, with the interval of resampling data sets and drawing the value of each.

    A resample draws as many data sets as there are, with replacement, and for each one of its draws,
    independently: other data sets might have been chosen, and other test windows.

    Args:
        values: [D], one per data set.
        draws: [D, R], values that each may have had with other test windows.

    Returns:
        The mean; its bounds are NaN for a single data set, or where a draw is NaN.
    """
    value, sets = float(np.mean(values)), len(values)
    if sets < 2:
        return Interval(value, math.nan, math.nan)
    generator = np.random.default_rng(_SEED)
    drawn = generator.integers(0, sets, (DRAWS, sets))
    inner = generator.integers(0, draws.shape[1], (DRAWS, sets))
    low, high = np.quantile(np.asarray(draws)[drawn, inner].mean(axis=1), _TAILS)
    return Interval(value, float(low), float(high))


def geometric_skill(ratios: NDArray[np.floating]) -> Interval:
    """Skill over data sets in percent: 100 (1 - geometric mean of the error ratios); positive is better.

    Args:
        ratios: [D] error over that of the reference forecast, one per data set.

    Returns:
        The skill, with the interval of the bootstrap over data sets; NaN bounds for a single one, or where a
        ratio is zero.
    """
    if not np.all(ratios):
        return Interval(math.nan if np.isnan(ratios).any() else 100.0, math.nan, math.nan)
    logarithms = np.log(np.asarray(ratios, dtype=np.float64))
    mean = nested_mean(logarithms, logarithms[:, None])
    value, high, low = (100 * (1 - math.exp(bound)) for bound in (mean.value, mean.low, mean.high))
    return Interval(value, low, high)

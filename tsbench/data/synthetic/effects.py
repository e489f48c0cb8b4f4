"""What happens to series of any family: trends, shifts, faults of sensors, changes of scale and clock."""

from collections.abc import Callable

import numpy as np

from tsbench.data.synthetic.primitives import (
    Series,
    chosen,
    impulses,
    interpolate_rows,
    log_normal,
    log_uniform,
    smooth_curves,
    split_rows,
    standardise,
    stretches,
    uniform,
    white,
)


def trend(rng: np.random.Generator, series: Series) -> Series:
    """Add a line, a broken line, an exponential or a saturating curve."""
    count, length = series.shape
    time = np.linspace(0, 1, length, dtype=np.float32)
    curve = np.empty_like(series)
    line, broken, growth, limit = split_rows(rng, (0.4, 0.25, 0.15, 0.2), count)
    curve[line] = time
    kink = uniform(rng, 0.1, 0.9, len(broken))
    curve[broken] = time + uniform(rng, -3, 3, len(broken)) * np.maximum(time - kink, 0)
    curve[growth] = np.exp(uniform(rng, 1, 4, len(growth)) * time)
    curve[limit] = np.tanh(log_uniform(rng, 1.5, 8, len(limit)) * (time - uniform(rng, 0, 0.7, len(limit))))
    sign = rng.choice(np.array([-1, 1], np.float32), (count, 1))
    return series + sign * log_normal(rng, 0.7, 0.7, count) * standardise(curve)


def level_shift(rng: np.random.Generator, series: Series) -> Series:
    """Add one or two lasting steps."""
    count, length = series.shape
    steps = np.cumsum(impulses(rng, count, length, 1 + rng.random(count)), axis=1)
    return series + log_normal(rng, 0.8, 0.5, count) * steps


def regime_change(rng: np.random.Generator, series: Series) -> Series:
    """From a random step on, another amplitude."""
    count, length = series.shape
    after = np.arange(length) >= length * rng.random((count, 1))
    return np.where(after, series * log_normal(rng, 1.0, 0.7, count), series)


def varying_noise(rng: np.random.Generator, series: Series) -> Series:
    """Add white noise whose size changes slowly."""
    count, length = series.shape
    size = log_normal(rng, 0.15, 0.7, count) * np.exp(0.8 * smooth_curves(rng, count, length, 8))
    noise: Series = size * white(rng, count, length)
    return series + noise


def outliers(rng: np.random.Generator, series: Series) -> Series:
    """Add a few spikes of several standard deviations."""
    count, length = series.shape
    return series + uniform(rng, 2, 6, count) * impulses(rng, count, length, length / 150)


def saturation(rng: np.random.Generator, series: Series) -> Series:
    """Cut off below or above (a fifth: both), as sensors and physical limits do."""
    count = len(series)
    below, above, both = split_rows(rng, (0.45, 0.35, 0.2), count)
    low, high = np.full((2, count, 1), np.inf, np.float32)
    low *= -1
    for rows in (below, both):
        low[rows] = uniform(rng, -1.4, 0.1, len(rows))
    for rows in (above, both):
        high[rows] = uniform(rng, 0.4, 1.6, len(rows))
    return np.clip(series, low, high)


def rounding(rng: np.random.Generator, series: Series) -> Series:
    """Keep multiples of a step between 0.02 and 0.5 standard deviations."""
    step = log_uniform(rng, 0.02, 0.5, len(series))
    steps: Series = np.rint(series / step)
    return steps * step


def stuck(rng: np.random.Generator, series: Series) -> Series:
    """Repeat one value over a stretch, as a sensor that hangs."""
    count, length = series.shape
    hold = stretches(rng, count, length, 0.12)
    first = np.argmax(hold, axis=1)[:, None]
    return np.where(hold, np.take_along_axis(series, first, axis=1), series)


def change_clock(rng: np.random.Generator, series: Series) -> Series:
    """Slow time down, for a third by another factor after a random step: periods stretch by 1 to 2.5."""
    count, length = series.shape
    speed = np.broadcast_to(uniform(rng, 0.4, 1.0, count), series.shape).copy()
    rows = chosen(rng, 0.33, count)
    after = np.arange(length) >= length * rng.random((len(rows), 1))
    speed[rows] = np.where(after, uniform(rng, 0.4, 1.0, len(rows)), speed[rows])
    position = np.minimum(np.cumsum(speed, axis=1) - speed[:, :1], np.float32(length - 1.001))
    return interpolate_rows(series, position)


def smoothing(rng: np.random.Generator, series: Series) -> Series:
    """Moving average over 2 to 12 steps, shorter at the start."""
    length = series.shape[1]
    width = rng.integers(2, 13, (len(series), 1))
    total = np.pad(np.cumsum(series, axis=1), ((0, 0), (1, 0)))
    end = np.arange(1, length + 1)
    start = np.maximum(end - width, 0)
    mean: Series = total[:, 1:] - np.take_along_axis(total, start, axis=1)
    mean /= (end - start).astype(np.float32)
    return mean


def sparse_noise(rng: np.random.Generator, series: Series) -> Series:
    """Add noise on one short stretch only."""
    count, length = series.shape
    noise = log_normal(rng, 0.5, 0.6, count) * white(rng, count, length)
    return series + noise * stretches(rng, count, length, 0.2)


def sign_flip(rng: np.random.Generator, series: Series) -> Series:
    """Upside down."""
    return -series


def time_reversal(rng: np.random.Generator, series: Series) -> Series:
    """Newest first."""
    return series[:, ::-1]


Effect = Callable[[np.random.Generator, Series], Series]

# In this order, each with its own probability.
EFFECTS: tuple[tuple[Effect, float], ...] = (
    (change_clock, 0.12),
    (time_reversal, 0.05),
    (sign_flip, 0.2),
    (trend, 0.25),
    (level_shift, 0.12),
    (regime_change, 0.08),
    (smoothing, 0.06),
    (varying_noise, 0.12),
    (sparse_noise, 0.05),
    (outliers, 0.08),
    (saturation, 0.1),
    (stuck, 0.05),
    (rounding, 0.1),
)


def mix(rng: np.random.Generator, series: Series, pool: Series) -> Series:
    """Convex combinations of each series with one or two of the pool.

    Args:
        rng: Source of randomness.
        series: [count, length] float32, standardised.
        pool: [size, length] float32, standardised: where the partners come from.

    Returns:
        [count, length] float32.

    Source: TSMixup, Ansari et al. 2024 (arXiv 2403.07815, algorithm 1), with Dirichlet(1.5) weights.
    """
    count = len(series)
    weights = rng.dirichlet((1.5, 1.5, 1.5), count)
    weights[rng.random(count) < 0.5, 2] = 0
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    partners = rng.integers(len(pool), size=(2, count))
    mixture: Series = weights[:, :1] * series
    mixture += weights[:, 1:2] * pool[partners[0]]
    mixture += weights[:, 2:] * pool[partners[1]]
    return mixture


def apply_effects(rng: np.random.Generator, series: Series) -> None:
    """Put standardised series [count, length] through all effects, in place; they stay standardised."""
    for effect, probability in EFFECTS:
        rows = chosen(rng, probability, len(series))
        series[rows] = standardise(effect(rng, series[rows]))

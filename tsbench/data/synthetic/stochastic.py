"""Processes without a season: walks of many kinds, autoregressions and coloured noise."""

import numpy as np
from scipy import fft

from tsbench.data.synthetic.primitives import (
    Series,
    autoregressive,
    chosen,
    filter_groups,
    impulses,
    log_normal,
    log_uniform,
    relaxing,
    split_rows,
    standardise,
    uniform,
    white,
)


def random_walk(rng: np.random.Generator, count: int, length: int) -> Series:
    """Random walks: plain, with drift, with clustered volatility, with heavy tails or jumps.

    Increments are standard normal; three tenths have volatility exp(AR(1)), a fifth Student-t increments, a
    tenth rare large jumps, three tenths a drift, and three in twenty observation noise. Increments are
    otherwise uncorrelated, so that the last value is the best forecast.

    Args:
        rng: Source of randomness.
        count: Number of series.
        length: Steps per series.

    Returns:
        [count, length] float32, not scaled.
    """
    steps = white(rng, count, length)
    rows = chosen(rng, 0.3, count)
    steps[rows] *= volatility(rng, len(rows), length)
    rows = chosen(rng, 0.2, count)
    steps[rows] /= np.sqrt(rng.gamma(2.0, 0.5, (len(rows), length)).astype(np.float32) + np.float32(1e-3))
    rows = chosen(rng, 0.1, count)
    steps[rows] += 12 * impulses(rng, len(rows), length, rng.uniform(1, 6, len(rows)))
    rows = chosen(rng, 0.2, count)
    steps[rows] += uniform(rng, -0.05, 0.05, len(rows))
    walks = np.cumsum(steps, axis=1)
    rows = chosen(rng, 0.15, count)
    walks[rows] += log_uniform(rng, 0.2, 4.0, len(rows)) * white(rng, len(rows), length)
    rows = chosen(rng, 0.2, count)
    walks[rows] = np.exp(walks[rows] * (uniform(rng, 0.1, 0.8, len(rows)) / np.float32(length) ** 0.5))
    return walks


def volatility(rng: np.random.Generator, count: int, length: int) -> Series:
    """Stochastic volatility: the exponential of half a slow AR(1)."""
    logarithm: Series = log_normal(rng, 0.5, 0.4, count) * relaxing(rng, count, length, 10, 300)
    return np.exp(logarithm)


def autoregression(rng: np.random.Generator, count: int, length: int) -> Series:
    """AR(1), AR(2) near the unit circle, once-integrated AR(1) and 1/f^b noise.

    Args:
        rng: Source of randomness.
        count: Number of series.
        length: Steps per series.

    Returns:
        [count, length] float32, not scaled.
    """
    series = np.empty((count, length), np.float32)
    makers = (_mean_reverting, _oscillating, _integrated, coloured_noise)
    for maker, rows in zip(makers, split_rows(rng, (0.3, 0.3, 0.15, 0.25), count), strict=True):
        series[rows] = maker(rng, len(rows), length)
    rows = chosen(rng, 0.4, count)
    series[rows] += log_normal(rng, 0.15, 0.8, len(rows)) * white(rng, len(rows), length)
    return series


def _mean_reverting(rng: np.random.Generator, count: int, length: int) -> Series:
    """Ornstein-Uhlenbeck processes, some with jumps that they forget."""
    series = relaxing(rng, count, length, 2, 600)
    rows = chosen(rng, 0.2, count)
    kicks = impulses(rng, len(rows), length, 5.0)
    series[rows] += 3 * autoregressive(rng, kicks, 0.95) * np.sqrt(1 / (1 - 0.95**2))
    return series


def _oscillating(rng: np.random.Generator, count: int, length: int) -> Series:
    """AR(2) with complex roots of radius near 1: pseudo-cycles whose phase wanders."""
    groups = filter_groups(count)
    radius = np.exp(-1 / log_uniform(rng, 8, 400, groups)[:, 0].astype(np.float64))
    angle = 2 * np.pi / log_uniform(rng, 4, 300, groups)[:, 0].astype(np.float64)
    return autoregressive(rng, white(rng, count, length), 2 * radius * np.cos(angle), -(radius**2))


def _integrated(rng: np.random.Generator, count: int, length: int) -> Series:
    """Walks whose increments are themselves autocorrelated: ARIMA(1,1,0)."""
    return np.cumsum(relaxing(rng, count, length, 1, 40), axis=1)


def coloured_noise(rng: np.random.Generator, count: int, length: int) -> Series:
    """Gaussian noise with power spectrum 1/f^b, b uniform in [0.3, 2.2], by the inverse FFT."""
    size = fft.next_fast_len(2 * length, real=True)
    frequency = np.arange(1, size // 2 + 2, dtype=np.float32)
    spectrum = rng.standard_normal((count, size // 2 + 1, 2), dtype=np.float32).view(np.complex64)[..., 0]
    spectrum *= frequency ** (-0.5 * uniform(rng, 0.3, 2.2, count))
    noise: Series = fft.irfft(spectrum, size, axis=1)[:, :length]
    return standardise(noise)

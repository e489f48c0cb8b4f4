"""Counts, intermittent demand and states that switch."""

import numpy as np

from tsbench.data.synthetic.primitives import (
    Series,
    log_normal,
    log_uniform,
    split_rows,
    uniform,
    wandering,
    white,
)
from tsbench.data.synthetic.profiles import random_profiles, read_profiles
from tsbench.data.synthetic.seasonal import PERIODS, draw_periods, phases


def intermittent(rng: np.random.Generator, count: int, length: int) -> Series:
    """Poisson counts, zero-inflated demand, switching states and schedules with skipped cycles.

    Args:
        rng: Source of randomness.
        count: Number of series.
        length: Steps per series.

    Returns:
        [count, length] float32, not scaled.
    """
    series = np.empty((count, length), np.float32)
    makers = (_counts, _demand, _states, _schedule)
    for maker, rows in zip(makers, split_rows(rng, (0.4, 0.25, 0.2, 0.15), count), strict=True):
        series[rows] = maker(rng, len(rows), length)
    return series


def _intensity(rng: np.random.Generator, count: int, length: int) -> Series:
    """Logarithm of a seasonal and wandering intensity, zero on average."""
    phase = phases(rng, draw_periods(rng, PERIODS, count), length)
    season = uniform(rng, 0.3, 1.2, count) * read_profiles(random_profiles(rng, count), phase)
    return season + log_normal(rng, 0.3, 0.6, count) * wandering(rng, count, length, 10, 1000)


def _counts(rng: np.random.Generator, count: int, length: int) -> Series:
    """Poisson counts of a seasonal intensity."""
    rate = log_uniform(rng, 0.3, 60, count) * np.exp(np.minimum(_intensity(rng, count, length), 3))
    return rng.poisson(rate).astype(np.float32)


def _demand(rng: np.random.Generator, count: int, length: int) -> Series:
    """Zero unless an event happens (chance seasonal), then of log-normal size."""
    odds = log_uniform(rng, 0.03, 1.0, count) * np.exp(np.minimum(_intensity(rng, count, length), 3))
    happens = rng.random((count, length), dtype=np.float32) * (1 + odds) < odds
    return np.where(happens, np.exp(uniform(rng, 0.1, 0.8, count) * white(rng, count, length)), np.float32(0))


def _states(rng: np.random.Generator, count: int, length: int) -> Series:
    """Piecewise-constant levels, two to five of them, held for geometric times, with little noise."""
    switch = rng.random((count, length), dtype=np.float32) < 1 / log_uniform(rng, 5, 150, count)
    switch[:, 0] = False
    held = np.cumsum(switch, axis=1, dtype=np.intp)
    state = rng.integers(0, rng.integers(2, 6, (count, 1)), (count, length))
    state = np.take_along_axis(state, held, axis=1)
    value = np.take_along_axis(white(rng, count, 5), state, axis=1)
    return value + log_normal(rng, 0.04, 1.0, count) * white(rng, count, length)


def _schedule(rng: np.random.Generator, count: int, length: int) -> Series:
    """On for a share of each cycle, off otherwise; some cycles are skipped, heights vary."""
    phase = phases(rng, draw_periods(rng, PERIODS, count), length)
    cycle = np.floor(phase).astype(np.intp)
    cycles = int(cycle.max(initial=0)) + 1
    height = np.exp(uniform(rng, 0.0, 0.4, count) * white(rng, count, cycles))
    height *= rng.random((count, cycles)) < uniform(rng, 0.6, 1.0, count)
    on = phase - cycle < uniform(rng, 0.05, 0.6, count)
    value = np.where(on, np.take_along_axis(height, cycle, axis=1), 0)
    return value.astype(np.float32) + log_normal(rng, 0.03, 1.0, count) * white(rng, count, length)

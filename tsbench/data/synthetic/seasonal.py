"""Seasonal mixtures: known and odd periods, sharp shapes, wandering amplitude and level, coloured noise."""

import numpy as np

from tsbench.data.synthetic.primitives import (
    Series,
    by_blocks,
    chosen,
    grainy,
    interpolate_rows,
    log_normal,
    log_uniform,
    relaxing,
    smooth_curves,
    uniform,
    wandering,
)
from tsbench.data.synthetic.profiles import POINTS, random_profiles, read_profiles

# Steps per cycle and their weights: hours, quarters of an hour, ten minutes and days, by day and by week.
PERIODS = {24: 24, 96: 20, 144: 12, 168: 8, 48: 7, 7: 6, 288: 5, 12: 4, 672: 4, 1008: 3, 30: 2, 52: 2, 60: 2}
# Steps per day of calendar series.
DAYS = {24: 42, 96: 32, 48: 8, 144: 13, 288: 5}
_SHORTEST, _LONGEST = 4.0, 400.0


def draw_periods(rng: np.random.Generator, table: dict[int, int], count: int) -> Series:
    """Periods [count, 1] from a table of weights."""
    weights = np.array([*table.values()], np.float64)
    return rng.choice(np.array([*table], np.float32), (count, 1), p=weights / weights.sum())


def phases(rng: np.random.Generator, periods: Series, length: int) -> Series:
    """Cycles elapsed at each step from a random start within the cycle, [count, length]."""
    elapsed: Series = np.arange(length, dtype=np.float32) / periods
    elapsed += rng.random((len(periods), 1), dtype=np.float32)
    return elapsed


def by_cycle(rng: np.random.Generator, phase: Series) -> Series:
    """AR(1) over cycles, joined by straight lines: unit variance, [count, length]."""
    cycles = int(phase.max(initial=0)) + 2
    return by_blocks(interpolate_rows, relaxing(rng, len(phase), cycles, 0.3, 12), phase)


def wobble(rng: np.random.Generator, size: float, phase: Series) -> Series:
    """Amplitude by cycle: 1 plus log-normal (median `size`) times an AR(1) over cycles, [count, length]."""
    factor = by_cycle(rng, phase)
    factor *= log_normal(rng, size, 0.7, len(phase))
    factor += 1
    return factor


def seasonal_mixture(rng: np.random.Generator, count: int, length: int) -> Series:
    """One to three seasonal parts plus wandering level and noise.

    Each part reads a random profile at the phase t/period (+ slow jitter in a few), times an amplitude that
    changes from cycle to cycle; some profiles turn slowly into another. The share of noise is broad: medians
    are 0.35 standard deviations of the first season for the wandering level and 0.25 for noise with a short
    memory, and one series in ten has three times as much.

    Args:
        rng: Source of randomness.
        count: Number of series.
        length: Steps per series.

    Returns:
        [count, length] float32, not scaled.
    """
    second, third = chosen(rng, 0.4, count), chosen(rng, 0.15, count)
    parts = _parts(rng, count + len(second) + len(third), length)
    series = parts[:count]
    series[second] += log_normal(rng, 0.5, 0.6, len(second)) * parts[count : count + len(second)]
    series[third] += log_normal(rng, 0.5, 0.6, len(third)) * parts[count + len(second) :]
    series += disturbance(rng, count, length)
    return series


def disturbance(rng: np.random.Generator, count: int, length: int) -> Series:
    """Wandering level plus noise with a short memory, for a signal of unit variance."""
    sizes = log_normal(rng, 0.25, 0.8, count), log_normal(rng, 0.06, 1.0, count)
    noise = grainy(rng, *sizes, length, longest=150)
    noise += log_normal(rng, 0.35, 0.9, count) * wandering(rng, count, length, 20, 3000)
    return noise


def calendar(rng: np.random.Generator, count: int, length: int) -> Series:
    """Days nested in weeks: weekend days follow another profile or another scale.

    Args:
        rng: Source of randomness.
        count: Number of series.
        length: Steps per series.

    Returns:
        [count, length] float32, not scaled.
    """
    periods = draw_periods(rng, DAYS, count)
    phase = phases(rng, periods, length)
    series = calendar_profile(rng, phase)
    series *= wobble(rng, 0.12, phase)
    series += disturbance(rng, count, length)
    return series


def calendar_profile(rng: np.random.Generator, phase: Series) -> Series:
    """Daily profile with its weekend variant, read at phases in days.

    The day starts at the lowest point of its profile. On one or two rest days of seven the peaks shrink or
    grow; for some the whole level falls, or another profile is added that vanishes at midnight.

    Args:
        rng: Source of randomness.
        phase: [count, length] float32 in days, not below 0.

    Returns:
        [count, length] float32, workdays of unit variance.
    """
    count = len(phase)
    rows = chosen(rng, 0.4, count)
    profiles = random_profiles(rng, count + len(rows))
    midnight = np.argmin(profiles[:count], axis=1)[:, None]
    workday = np.take_along_axis(profiles[:count], (midnight + np.arange(POINTS)) % POINTS, axis=1)
    low = workday[:, :1]
    weekend = low + uniform(rng, 0.2, 1.1, count) * (workday - low)
    weekend[rows] += 0.7 * profiles[count:] * np.sin(np.linspace(0, np.pi, POINTS, dtype=np.float32)) ** 2
    rows = chosen(rng, 0.3, count)
    weekend[rows] -= log_normal(rng, 0.4, 0.7, len(rows))
    tables = np.concatenate([workday, workday[:, :1], weekend, weekend[:, :1]], axis=1)
    weekday = rng.integers(7, size=(count, 1)).astype(np.float32)
    rest_days = rng.choice(np.array([1, 2], np.float32), (count, 1), p=[0.25, 0.75])
    return by_blocks(_read_calendar, tables, weekday, rest_days, phase)


def _read_calendar(tables: Series, weekday: Series, rest_days: Series, phase: Series) -> Series:
    """Read workday and weekend profiles that stand side by side; rest days open the week."""
    day = np.floor(phase)
    week = (day + weekday + np.float32(0.5)) / 7
    resting = 7 * (week - np.floor(week)) < rest_days
    return interpolate_rows(tables, (phase - day) * POINTS + (POINTS + 1) * resting.astype(np.float32))


def _mixed_periods(rng: np.random.Generator, count: int) -> Series:
    """Three quarters from the table, the others anywhere, log-uniform."""
    anywhere = log_uniform(rng, _SHORTEST, _LONGEST, count)
    return np.where(rng.random((count, 1)) < 0.75, draw_periods(rng, PERIODS, count), anywhere)


def _parts(rng: np.random.Generator, count: int, length: int) -> Series:
    """Seasonal series of unit size: some jitter in phase, drift to another profile or change amplitude."""
    phase = phases(rng, _mixed_periods(rng, count), length)
    rows = chosen(rng, 0.1, count)
    phase[rows] = np.maximum(phase[rows] + 0.03 * smooth_curves(rng, len(rows), length, 20), 0)

    rows = chosen(rng, 0.15, count)
    profiles = random_profiles(rng, count + len(rows))
    parts = read_profiles(profiles[:count], phase)
    share = 1 / (1 + np.exp(-1.5 * smooth_curves(rng, len(rows), length, 3)))
    parts[rows] += share * (read_profiles(profiles[count:], phase[rows]) - parts[rows])

    rows = chosen(rng, 0.6, count)
    parts[rows] *= wobble(rng, 0.18, phase[rows])
    return parts

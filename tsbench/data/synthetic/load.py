"""Load-like series: what substations, transformers and roads record."""

import numpy as np

from tsbench.data.synthetic.primitives import (
    Series,
    chosen,
    filter_groups,
    grainy,
    log_normal,
    log_uniform,
    low_pass,
    smooth_curves,
    stretches,
    uniform,
    wandering,
    white,
)
from tsbench.data.synthetic.seasonal import DAYS, by_cycle, calendar_profile, draw_periods, phases, wobble


def load(rng: np.random.Generator, count: int, length: int) -> Series:
    """Daily shape times a wandering level, with weekends, level-dependent noise and outages.

    load = base + (1 + change by day)·profile(time of day, workday or rest day) + day-to-day level
           + level wandering over days to weeks, and noise with a short memory, for 60 % times √|load|.

    So the best forecast is the recent shape at a level between the last one and the mean. A quarter are
    "thermal": the load seen through a first-order lag, as oil temperature follows load. One in eight has
    an outage (zero), one in eight a regime change; a quarter have a floor.

    Args:
        rng: Source of randomness.
        count: Number of series.
        length: Steps per series.

    Returns:
        [count, length] float32, not scaled.
    """
    periods = draw_periods(rng, DAYS, count)
    phase = phases(rng, periods, length)
    shape = calendar_profile(rng, phase)
    shape *= wobble(rng, 0.15, phase)
    series = shape + log_normal(rng, 2.0, 0.7, count)
    series += log_normal(rng, 0.35, 0.8, count) * by_cycle(rng, phase)
    series += log_normal(rng, 0.3, 0.9, count) * wandering(rng, count, length, 50, 3000)
    rows = chosen(rng, 0.12, count)
    series[rows] = _change_regime(rng, series[rows])
    sizes = log_normal(rng, 0.3, 0.7, count), log_normal(rng, 0.1, 0.9, count)
    noise = grainy(rng, *sizes, length, longest=150)
    rows = chosen(rng, 0.6, count)
    noise[rows] *= np.sqrt(np.abs(series[rows]) + np.float32(0.1))
    series += noise
    rows = chosen(rng, 0.25, count)
    series[rows] = _thermal(rng, series[rows])
    rows = chosen(rng, 0.12, count)
    series[rows] *= ~stretches(rng, len(rows), length, 0.15)
    rows = chosen(rng, 0.25, count)
    cut = series[rows]
    floor = cut.mean(axis=1, keepdims=True) + uniform(rng, -1.3, 0.3, len(rows)) * cut.std(
        axis=1, keepdims=True
    )
    series[rows] = np.maximum(cut, floor)
    return series


def _change_regime(rng: np.random.Generator, level: Series) -> Series:
    """From a random step on, another scale and another offset."""
    count, length = level.shape
    after = np.arange(length) >= length * rng.random((count, 1))
    changed = level * log_normal(rng, 1.0, 0.5, count) + 0.8 * white(rng, count, 1)
    return np.where(after, changed, level)


def _thermal(rng: np.random.Generator, heat: Series) -> Series:
    """The heat through a first-order lag, plus a slow ambient temperature and the sensor's noise."""
    count, length = heat.shape
    series = low_pass(heat, log_uniform(rng, 2, 30, filter_groups(count))[:, 0])
    series += log_normal(rng, 0.4, 0.7, count) * smooth_curves(rng, count, length, 8)
    return series + log_normal(rng, 0.03, 0.8, count) * white(rng, count, length)

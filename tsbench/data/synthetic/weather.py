"""Weather-like series: temperature, pressure, radiation, humidity, rain, wind speed and direction."""

import numpy as np

from tsbench.data.synthetic.primitives import (
    Series,
    autoregressive,
    filter_groups,
    log_normal,
    log_uniform,
    relaxing,
    smooth_curves,
    split_rows,
    uniform,
    white,
)
from tsbench.data.synthetic.seasonal import by_cycle, draw_periods, phases, wobble

# Steps per day and their weights.
_DAYS = {144: 45, 24: 27, 96: 15, 48: 7, 288: 6}
_KINDS = (0.3, 0.12, 0.16, 0.14, 0.1, 0.14, 0.04)


def weather(rng: np.random.Generator, count: int, length: int) -> Series:
    """Series as a weather station records them, at ten minutes to an hour per step.

    Args:
        rng: Source of randomness.
        count: Number of series.
        length: Steps per series.

    Returns:
        [count, length] float32, not scaled.
    """
    makers = (_temperature, _pressure, _radiation, _humidity, _rain, _wind_speed, _wind_direction)
    series = np.empty((count, length), np.float32)
    for maker, rows in zip(makers, split_rows(rng, _KINDS, count), strict=True):
        phase = phases(rng, draw_periods(rng, _DAYS, len(rows)), length)
        series[rows] = maker(rng, phase)
    return series


def _synoptic(rng: np.random.Generator, phase: Series) -> Series:
    """Smooth weather systems passing within days: AR(2) with a double real root, unit variance."""
    count, length = phase.shape
    decay = np.exp(-1 / log_uniform(rng, 8, 250, filter_groups(count))[:, 0].astype(np.float64))
    return autoregressive(rng, white(rng, count, length), 2 * decay, -(decay**2))


def _sun(phase: Series, day_share: Series) -> Series:
    """Height of the sun: a half-wave around noon (phase ½), 0 at night."""
    noon = np.float32(np.pi) * (phase - np.floor(phase) - np.float32(0.5)) / day_share
    return np.where(np.abs(noon) < np.pi / 2, np.cos(noon), np.float32(0))


def _cloud(rng: np.random.Generator, phase: Series) -> Series:
    """Share of light that passes, in (0, 1): overcast days and quick clouds."""
    count, length = phase.shape
    cover = log_normal(rng, 1.0, 0.5, count) * by_cycle(rng, phase)
    cover += log_normal(rng, 0.6, 0.6, count) * relaxing(rng, count, length, 1, 20)
    passing: Series = 1 / (1 + np.exp(cover - uniform(rng, -0.5, 2.5, count)))
    return passing


def _temperature(rng: np.random.Generator, phase: Series) -> Series:
    """A skewed daily wave that clouds damp, weather systems, a piece of the year and little noise."""
    count, length = phase.shape
    angle = np.float32(2 * np.pi) * phase
    lag = uniform(rng, -1.0, 1.0, count)
    wave: Series = np.cos(angle - lag) + uniform(rng, 0.05, 0.35, count) * np.cos(2 * angle - 2 * lag + 0.8)
    wave *= np.maximum(wobble(rng, 0.3, phase), np.float32(0.05))
    wave += log_normal(rng, 0.8, 0.6, count) * _synoptic(rng, phase)
    wave += log_normal(rng, 0.5, 0.8, count) * smooth_curves(rng, count, length, 3)
    wave += log_normal(rng, 0.04, 0.9, count) * relaxing(rng, count, length, 0.5, 6)
    return wave


def _pressure(rng: np.random.Generator, phase: Series) -> Series:
    """Smooth weather systems with a faint twice-daily tide."""
    count, length = phase.shape
    value = _synoptic(rng, phase)
    value += log_normal(rng, 0.6, 0.6, count) * smooth_curves(rng, count, length, 8)
    value += log_normal(rng, 0.08, 0.8, count) * np.cos(np.float32(4 * np.pi) * phase)
    value += log_normal(rng, 0.01, 1.0, count) * white(rng, count, length)
    return value


def _radiation(rng: np.random.Generator, phase: Series) -> Series:
    """Sun times cloud, zero at night."""
    count = len(phase)
    sun = _sun(phase, uniform(rng, 0.33, 0.68, count)) ** log_uniform(rng, 0.9, 1.5, count)
    light: Series = sun * _cloud(rng, phase)
    return light


def _humidity(rng: np.random.Generator, phase: Series) -> Series:
    """High at night, low by day, drifting with the weather, saturated at 1."""
    count, length = phase.shape
    value: Series = np.cos(np.float32(2 * np.pi) * phase + uniform(rng, -1, 1, count))
    value *= log_normal(rng, 0.6, 0.5, count)
    value *= np.maximum(wobble(rng, 0.25, phase), 0)
    value += log_normal(rng, 0.7, 0.5, count) * _synoptic(rng, phase)
    value += log_normal(rng, 0.12, 0.7, count) * relaxing(rng, count, length, 1, 12)
    return np.minimum(value, uniform(rng, 0.2, 2.5, count))


def _rain(rng: np.random.Generator, phase: Series) -> Series:
    """Dry most of the time, bursts inside wet spells."""
    count, length = phase.shape
    spell: Series = _synoptic(rng, phase) - uniform(rng, 0.3, 1.3, count)
    burst = spell + log_normal(rng, 0.6, 0.4, count) * relaxing(rng, count, length, 1, 8)
    amount: Series = np.maximum(burst, 0) ** uniform(rng, 1.0, 2.5, count)
    return amount


def _wind_speed(rng: np.random.Generator, phase: Series) -> Series:
    """Length of a wandering wind vector, stronger by day, with gusts."""
    count, length = phase.shape
    quick = uniform(rng, 0.2, 0.8, count)
    east = _synoptic(rng, phase) + quick * relaxing(rng, count, length, 1, 20)
    north = _synoptic(rng, phase) + quick * relaxing(rng, count, length, 1, 20)
    daily = 1 + uniform(rng, 0.0, 0.9, count) * np.sin(np.float32(2 * np.pi) * phase)
    gust = np.exp(uniform(rng, 0.05, 0.4, count) * white(rng, count, length))
    speed: Series = np.hypot(east, north)
    speed *= daily * gust
    return speed


def _wind_direction(rng: np.random.Generator, phase: Series) -> Series:
    """An angle that wanders and wraps round."""
    count, length = phase.shape
    angle: Series = uniform(rng, 0.1, 0.5, count) * _synoptic(rng, phase) + uniform(rng, 0, 1, count)
    angle += uniform(rng, 0.01, 0.1, count) * white(rng, count, length)
    angle += uniform(rng, 0.0, 0.2, count) * np.sin(np.float32(2 * np.pi) * phase)
    return angle - np.floor(angle)

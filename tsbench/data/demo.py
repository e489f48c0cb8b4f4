"""The built-in data set `demo`, generated, so that a first run needs no network."""

import hashlib

import numpy as np
from numpy.typing import NDArray

_SEED = 20240101
_DAY, _WEEK = 24, 168


def generate_demo(rows: int, channels: int) -> NDArray[np.float64]:
    """Generate hourly series with what real ones have.

    Each channel is a level with slow drift (a random walk), a daily cycle with its first harmonic, a
    weekly cycle, a regime change at seven tenths (level and daily amplitude move) and autocorrelated
    noise (AR(1), coefficient 0.7) whose size follows the daily cycle. Channels differ in phase and size.
    The change lies in the validation rows of the demo's split, so that train and test differ.

    Args:
        rows: Number of hours T.
        channels: Number of channels C.

    Returns:
        [T, C] float64, rounded to three decimals: the last bits of sine and exponential depend on the
        platform, the rounded values and their checksum do not.
    """
    generator = np.random.default_rng(_SEED)
    hour = np.arange(rows)[:, None]
    phase = generator.uniform(0, _DAY, channels)
    size = generator.uniform(0.7, 1.6, channels)
    weight = generator.uniform(0.3, 0.8, channels)
    changed = hour >= 0.7 * rows

    daily = np.sin(2 * np.pi * (hour + phase) / _DAY) + 0.4 * np.sin(4 * np.pi * (hour + 2 * phase) / _DAY)
    weekly = weight * np.sin(2 * np.pi * (hour + phase) / _WEEK)
    drift = np.cumsum(generator.normal(0, 0.01, (rows, channels)), axis=0)
    noise = generator.normal(0, 0.2, (rows, channels)) * np.exp(
        0.6 * np.sin(2 * np.pi * (hour + phase) / _DAY)
    )
    for row in range(1, rows):
        noise[row] += 0.7 * noise[row - 1]
    signal = daily * np.where(changed, 0.7, 1.0) + weekly + drift + 0.8 * changed + noise
    return np.round(10 + size * signal, 3)


def demo_timestamps(rows: int) -> NDArray[np.datetime64]:
    """Hours from 2024-01-01 on, [T] datetime64[s]."""
    return np.datetime64("2024-01-01T00:00:00") + np.arange(rows) * np.timedelta64(3600, "s")


def array_sha256(values: NDArray[np.float64]) -> str:
    """Checksum of the values as little-endian float64 bytes in row order."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").data).hexdigest()

"""Shapes of one seasonal cycle, as tables that are read at the phase."""

import numpy as np

from tsbench.data.synthetic.primitives import (
    Series,
    by_blocks,
    chosen,
    interpolate_rows,
    log_uniform,
    split_rows,
    standardise,
    uniform,
    white,
)

POINTS = 128
_PHASE = np.arange(POINTS, dtype=np.float32) / POINTS
_HARMONICS = 12


def random_profiles(rng: np.random.Generator, count: int) -> Series:
    """Periodic shapes of mean 0 and unit variance, [count, POINTS].

    A third are sums of harmonics; the others are plateaus, bumps, saw teeth, arcs that are flat outside
    "daylight", and clipped waves. A third of all are sums of two such shapes.
    """
    rows = chosen(rng, 0.35, count)
    shapes = _single_shapes(rng, count + len(rows))
    profiles = shapes[:count]
    profiles[rows] += uniform(rng, 0.2, 1.0, len(rows)) * shapes[count:]
    return standardise(profiles)


def read_profiles(profiles: Series, phase: Series) -> Series:
    """Values of each row's profile at phases [count, length], in cycles and not below 0."""
    return by_blocks(_read, profiles, phase)


def _read(profiles: Series, phase: Series) -> Series:
    closed = np.concatenate([profiles, profiles[:, :1]], axis=1)
    return interpolate_rows(closed, (phase - np.floor(phase)) * POINTS)


def _single_shapes(rng: np.random.Generator, count: int) -> Series:
    shapes = (_harmonics, _plateaus, _bumps, _saw, _arc, _clipped)
    profiles = np.empty((count, POINTS), np.float32)
    for shape, rows in zip(shapes, split_rows(rng, (0.32, 0.16, 0.2, 0.08, 0.1, 0.14), count), strict=True):
        profiles[rows] = standardise(shape(rng, len(rows)))
    return profiles


def _harmonics(rng: np.random.Generator, count: int) -> Series:
    """Sums of harmonics whose amplitudes fall as a random power of their order."""
    order = np.arange(1, _HARMONICS + 1, dtype=np.float32)
    size = order ** -uniform(rng, 0.3, 3.0, count) * (order <= rng.integers(1, _HARMONICS + 1, (count, 1)))
    angle = 2 * np.pi * order[:, None] * _PHASE
    waves: Series = (white(rng, count, _HARMONICS) * size) @ np.cos(angle)
    waves += (white(rng, count, _HARMONICS) * size) @ np.sin(angle)
    return waves


def _plateaus(rng: np.random.Generator, count: int) -> Series:
    """Two to five levels joined by ramps, steep or gentle."""
    gaps = 0.2 + rng.random((count, 5), dtype=np.float32)
    edges = np.cumsum(gaps, axis=1) / gaps.sum(axis=1, keepdims=True)
    levels = white(rng, count, 5)
    same = np.arange(5) >= rng.integers(2, 6, (count, 1))
    levels = np.where(same, levels[:, :1], levels)
    width = log_uniform(rng, 0.004, 0.12, count)
    change = levels - np.roll(levels, 1, axis=1)
    ramps = np.clip((_PHASE - edges[:, :, None]) / width[:, :, None], 0, 1)
    ramps += np.clip((_PHASE + 1 - edges[:, :, None]) / width[:, :, None], 0, 1)
    plateaus: Series = np.einsum("nk,nkp->np", change, ramps)
    return plateaus


def _bumps(rng: np.random.Generator, count: int) -> Series:
    """One to four peaks exp(κ·(cos(2π(φ-μ))-1)), broad or spiky, seldom pointing down."""
    centre = rng.random((count, 4, 1), dtype=np.float32)
    sharpness = np.exp(rng.uniform(0.5, 5.5, (count, 4, 1))).astype(np.float32)
    height = rng.gamma(2.0, 1.0, (count, 4)) * np.where(rng.random((count, 4)) < 0.15, -1, 1)
    height *= np.arange(4) < rng.integers(1, 5, (count, 1))
    peaks = np.exp(sharpness * (np.cos(2 * np.pi * (_PHASE - centre)) - 1))
    bumps: Series = np.einsum("nk,nkp->np", height.astype(np.float32), peaks)
    return bumps


def _saw(rng: np.random.Generator, count: int) -> Series:
    """Rise for a share of the cycle, fall for the rest, with a curvature."""
    rise = uniform(rng, 0.03, 0.97, count)
    return np.minimum(_PHASE / rise, (1 - _PHASE) / (1 - rise)) ** log_uniform(rng, 0.5, 2.0, count)


def _arc(rng: np.random.Generator, count: int) -> Series:
    """A half-wave between "sunrise" and "sunset", flat outside."""
    day = uniform(rng, 0.2, 0.7, count)
    position = (_PHASE - uniform(rng, 0.0, 0.3, count)) / day
    wave = np.where((position > 0) & (position < 1), np.sin(np.pi * position), 0).astype(np.float32)
    return np.abs(wave) ** log_uniform(rng, 0.5, 2.0, count)


def _clipped(rng: np.random.Generator, count: int) -> Series:
    """Harmonics cut from below, above or both: flat nights, saturated days."""
    waves = standardise(_harmonics(rng, count))
    low = np.where(rng.random((count, 1)) < 0.7, uniform(rng, -1.2, 0.3, count), -np.inf)
    high = np.where(rng.random((count, 1)) < 0.4, uniform(rng, 0.5, 1.5, count), np.inf)
    return np.clip(waves, low, high).astype(np.float32)

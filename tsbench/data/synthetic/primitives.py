"""What every family is built from: noise, recurrences, slow curves, events and table look-up.

All functions are vectorised over series and work in float32, rows = series, columns = time, oldest first.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import signal

Series = NDArray[np.float32]

_ROWS_PER_FILTER = 16
_ROWS_PER_BLOCK = 32
_STRIDE = 8
_CONSTANT = np.float32(1e-5)


def white(rng: np.random.Generator, count: int, length: int) -> Series:
    """Standard normal white noise [count, length]."""
    return rng.standard_normal((count, length), dtype=np.float32)


def uniform(rng: np.random.Generator, low: float, high: float, count: int) -> Series:
    """One uniform number per series, [count, 1]."""
    return rng.uniform(low, high, (count, 1)).astype(np.float32)


def log_uniform(rng: np.random.Generator, low: float, high: float, count: int) -> Series:
    """One log-uniform number per series, [count, 1]."""
    return np.exp(rng.uniform(np.log(low), np.log(high), (count, 1))).astype(np.float32)


def log_normal(rng: np.random.Generator, median: float, sigma: float, count: int) -> Series:
    """One log-normal number per series, [count, 1]."""
    return (median * np.exp(sigma * rng.standard_normal((count, 1)))).astype(np.float32)


def chosen(rng: np.random.Generator, probability: float, count: int) -> NDArray[np.intp]:
    """Rows picked independently with the given probability, ascending."""
    return np.flatnonzero(rng.random(count) < probability)


def split_rows(rng: np.random.Generator, shares: tuple[float, ...], count: int) -> list[NDArray[np.intp]]:
    """Rows dealt at random to len(shares) kinds, each row to exactly one."""
    kind = rng.choice(len(shares), count, p=shares)
    return [np.flatnonzero(kind == index) for index in range(len(shares))]


def standardise(series: Series) -> Series:
    """Each row with mean 0 and standard deviation 1; a row that is constant up to rounding becomes 0."""
    mean = series.mean(axis=1, keepdims=True, dtype=np.float32)
    centred: Series = series - mean
    spread = np.sqrt(np.einsum("nt,nt->n", centred, centred) / np.float32(series.shape[1]))[:, None]
    varies = spread > _CONSTANT * np.abs(mean)
    centred *= np.where(varies, 1 / np.where(varies, spread, 1), 0).astype(np.float32)
    return centred


def autoregressive(rng: np.random.Generator, noise: Series, a1: ArrayLike, a2: ArrayLike = 0.0) -> Series:
    """Stationary AR(2) with unit variance, driven by white noise.

    y_t = a1·y_{t-1} + a2·y_{t-2} + e_t, divided by its standard deviation. The two steps before the first
    are drawn from the stationary law, so no burn-in is needed. Several rows share a pair of coefficients, as
    one call of the IIR filter serves them all.

    Args:
        rng: Source of randomness, for the steps before the first.
        noise: [count, length] float32 white noise of unit variance.
        a1: Coefficient of lag 1, one per group of rows, [filter_groups(count)], or one for all.
        a2: Coefficient of lag 2, likewise. The roots must lie outside the unit circle.

    Returns:
        [count, length] float32.
    """
    count = len(noise)
    lag1, lag2, _ = np.broadcast_arrays(a1, a2, np.empty(filter_groups(count)))
    correlation = lag1 / (1 - lag2)
    scale = np.sqrt((1 - lag2**2) * (1 - correlation**2))
    last, other = white(rng, 2, count)
    result = np.empty_like(noise)
    for group, rows in enumerate(_filter_slices(count)):
        before = correlation[group] * last[rows] + np.sqrt(1 - correlation[group] ** 2) * other[rows]
        state = np.stack([lag1[group] * last[rows] + lag2[group] * before, lag2[group] * last[rows]], axis=1)
        gain = np.array([scale[group], 0, 0], np.float32)
        poles = np.array([1, -lag1[group], -lag2[group]], np.float32)
        result[rows], _ = signal.lfilter(gain, poles, noise[rows], zi=state.astype(np.float32))
    return result


def low_pass(series: Series, constants: Series) -> Series:
    """Exponential moving average from the first value on.

    Args:
        series: [count, length] float32.
        constants: Time constant in steps, one per group of rows, [filter_groups(count)].

    Returns:
        [count, length] float32.
    """
    result = np.empty_like(series)
    for group, rows in enumerate(_filter_slices(len(series))):
        decay = np.exp(-1 / constants[group])
        gain, poles = np.array([1 - decay], np.float32), np.array([1, -decay], np.float32)
        result[rows], _ = signal.lfilter(gain, poles, series[rows], zi=decay * series[rows, :1])
    return result


def _filter_slices(count: int) -> list[slice]:
    return [slice(start, start + _ROWS_PER_FILTER) for start in range(0, count, _ROWS_PER_FILTER)]


def filter_groups(count: int) -> int:
    """How many coefficients `autoregressive` takes for this many rows."""
    return -(-count // _ROWS_PER_FILTER)


def relaxing(rng: np.random.Generator, count: int, length: int, shortest: float, longest: float) -> Series:
    """AR(1) noise of unit variance whose time constant is log-uniform in [shortest, longest] steps."""
    return autoregressive(rng, white(rng, count, length), _decays(rng, count, shortest, longest))


def grainy(rng: np.random.Generator, size: Series, grain: Series, length: int, longest: float) -> Series:
    """Noise with a short memory: size·AR(1) + grain·its innovations, which is an ARMA(1,1).

    Args:
        rng: Source of randomness.
        size: [count, 1] standard deviation of the AR(1), time constant log-uniform in [½, longest] steps.
        grain: [count, 1] weight of the innovations.
        length: Steps per series.
        longest: Longest time constant in steps.

    Returns:
        [count, length] float32.
    """
    count = len(size)
    innovations = white(rng, count, length)
    noise = autoregressive(rng, innovations, _decays(rng, count, 0.5, longest))
    noise *= size
    innovations *= grain
    noise += innovations
    return noise


def wandering(rng: np.random.Generator, count: int, length: int, shortest: float, longest: float) -> Series:
    """A level that wanders: as `relaxing`, but smooth within a few steps, and cheaper.

    The AR(1) is drawn at every eighth step and joined by cubic B-splines.
    """
    knots = -(-length // _STRIDE)
    coarse = relaxing(rng, count, knots + 3, shortest / _STRIDE, longest / _STRIDE)
    offset = np.arange(_STRIDE, dtype=np.float32) / np.float32(_STRIDE)
    weights = _spline(offset - np.arange(-1, 3, dtype=np.float32)[:, None])
    windows = np.lib.stride_tricks.sliding_window_view(coarse, 4, axis=1)
    return (windows.reshape(-1, 4) @ weights).reshape(count, knots * _STRIDE)[:, :length]


def _decays(rng: np.random.Generator, count: int, shortest: float, longest: float) -> NDArray[np.float64]:
    """AR(1) coefficients, one per group of rows."""
    return np.exp(-1 / log_uniform(rng, shortest, longest, filter_groups(count))[:, 0].astype(np.float64))


def _spline(distance: Series) -> Series:
    """The cubic B-spline."""
    size = np.abs(distance)
    inner = np.float32(2 / 3) - size**2 + size**3 / 2
    return np.where(size < 1, inner, np.maximum(2 - size, 0) ** 3 / 6)


def smooth_curves(rng: np.random.Generator, count: int, length: int, pieces: int) -> Series:
    """Standard normal cubic B-spline curves of so many pieces, [count, length]."""
    position = np.linspace(0, pieces, length, dtype=np.float32)
    basis = _spline(position - np.arange(-1, pieces + 2, dtype=np.float32)[:, None])
    basis /= np.sqrt((basis**2).sum(axis=0))
    curves: Series = white(rng, count, pieces + 3) @ basis
    return curves


def impulses(rng: np.random.Generator, count: int, length: int, rate: ArrayLike) -> Series:
    """Zero but for standard normal jumps at random steps, on average `rate` of them per series."""
    number = rng.poisson(np.broadcast_to(np.asarray(rate), (count,)))
    rows = np.repeat(np.arange(count), number)
    result = np.zeros((count, length), np.float32)
    np.add.at(result, (rows, rng.integers(length, size=len(rows))), rng.standard_normal(len(rows)))
    return result


def stretches(rng: np.random.Generator, count: int, length: int, longest: float) -> NDArray[np.bool_]:
    """True on one random stretch per series, of at most `longest` of its length."""
    size = np.maximum(longest * length * rng.random((count, 1)), 1)
    start = rng.uniform(-0.5 * size, length - 0.5 * size)
    step = np.arange(length)
    return (step >= start) & (step < start + size)


def interpolate_rows(table: Series, position: Series) -> Series:
    """Read each row of a table at fractional positions, linearly.

    Args:
        table: [count, width] float32.
        position: [count, length] float32 in [0, width - 1).

    Returns:
        [count, length] float32.
    """
    count, width = table.shape
    cells = np.empty((count, width - 1), np.complex64)  # value and slope, for one look-up instead of two
    cells.real = table[:, :-1]
    cells.imag = np.diff(table, axis=1)
    left = position.astype(np.intp)
    result = position - left.astype(np.float32)
    left += (width - 1) * np.arange(count)[:, None]
    picked = cells.ravel().take(left)
    result *= picked.imag
    result += picked.real
    return result


def by_blocks(function: Callable[..., Series], *arrays: Series) -> Series:
    """Apply a function of rows to a few rows at a time, so that its temporaries stay in the cache.

    Args:
        function: Takes as many arrays as given and returns one like the last of them.
        *arrays: [count, anything] float32 each.

    Returns:
        Shaped as the last array, float32.
    """
    result = np.empty_like(arrays[-1])
    for start in range(0, len(result), _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        result[rows] = function(*(array[rows] for array in arrays))
    return result

"""Windows for pre-training: synthetic series, optionally mixed with real ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tsbench.data.synthetic.corpus import generate

Float32 = NDArray[np.float32]

LONGEST = 1_232
"""Steps of a generated series: 512 of context and 720 to forecast."""

_STEPS_PER_POOL = 8
_LENGTHS = ((512, 96), (512, 192), (512, 336), (512, 720), (0, 96), (0, 192))  # context 0: any length
_LENGTH_SHARES = (0.55, 0.15, 0.1, 0.05, 0.1, 0.05)
_SHORTEST_CONTEXT = 48
_MISSING_ROWS = 0.05  # share of contexts with a stretch taken out
_SMALLEST_SPREAD = 1e-3  # of a context, relative to its series; flat ones say nothing about scale


@dataclass(frozen=True, eq=False)
class PretrainingWindows:
    """A batch of windows.

    Attributes:
        context: [B, L] float32, NaN where missing.
        target: [B, H] float32, complete.
    """

    context: Float32
    target: Float32


@dataclass(frozen=True, eq=False)
class PretrainingBatches:
    """The windows of every step: a pure function of seed, rank and step, so that a resume is exact.

    All windows of a step have one context length and one horizon, the same on every rank. Half the steps
    have 512 and 96 steps; the others reach to 720 ahead or shorten the context to as few as 48 steps.

    Attributes:
        seed: Of everything random; the validation windows use their own.
        batch_size: Windows per step and rank.
        rank: Number of the process among those that share the training.
        real: Real series, each [T] float32; may be empty. Those too short for a step's horizon sit it out.
        real_share: Share of windows cut from them.
    """

    seed: int
    batch_size: int
    rank: int = 0
    real: Sequence[Float32] = field(default=())
    real_share: float = 0.0

    def __call__(self, step: int) -> PretrainingWindows:
        """Windows of a step counted from 0."""
        context, horizon = _lengths(self.seed, step)
        return self.windows(step, context, horizon)

    def windows(self, step: int, context: int, horizon: int) -> PretrainingWindows:
        """Windows of a step, cut to L = `context` and H = `horizon` steps, together at most `LONGEST`."""
        pool, place = divmod(step, _STEPS_PER_POOL)
        first = place * self.batch_size
        series = _pool(self.seed, self.rank, pool, self.batch_size)[first : first + self.batch_size]
        rng = np.random.default_rng([self.seed, self.rank, step, 1])
        cut = _random_cut(rng, series, context + horizon)
        usable = [series for series in self.real if len(series) > horizon + 1]
        if usable:
            for row in np.flatnonzero(rng.random(len(cut)) < self.real_share):
                cut[row] = _real_window(rng, usable, context, horizon)
        return _split(rng, cut, context)


def _lengths(seed: int, step: int) -> tuple[int, int]:
    rng = np.random.default_rng([seed, step])
    context, horizon = _LENGTHS[rng.choice(len(_LENGTHS), p=_LENGTH_SHARES)]
    if not context:
        context = int(rng.integers(_SHORTEST_CONTEXT, LONGEST - horizon + 1))
    return context, horizon


@lru_cache(maxsize=2)
def _pool(seed: int, rank: int, pool: int, batch_size: int) -> Float32:
    """Series [batch_size * _STEPS_PER_POOL, LONGEST] of several steps: generating many at once is cheaper."""
    return generate(np.random.default_rng([seed, rank, pool, 0]), batch_size * _STEPS_PER_POOL, LONGEST)


def _random_cut(rng: np.random.Generator, series: Float32, length: int) -> Float32:
    first = rng.integers(0, series.shape[1] - length + 1, len(series))
    return np.take_along_axis(series, first[:, None] + np.arange(length), axis=1)


def _real_window(rng: np.random.Generator, real: Sequence[Float32], context: int, horizon: int) -> Float32:
    """[L + H] from one series, NaN before its start; the target is complete."""
    series = real[int(rng.integers(len(real)))]
    latest = len(series) - horizon
    origin = int(rng.integers(min(latest, _SHORTEST_CONTEXT), latest + 1))
    window = np.full(context + horizon, np.nan, dtype=np.float32)
    known = series[max(origin - context, 0) : origin + horizon]
    window[-len(known) :] = known
    return window


def _split(rng: np.random.Generator, cut: Float32, context: int) -> PretrainingWindows:
    """Context and target; rows with a flat context are replaced by others, all of them by white noise."""
    past, target = cut[:, :context].copy(), cut[:, context:]
    gaps = np.flatnonzero(rng.random(len(cut)) < _MISSING_ROWS)
    for row in gaps:
        length = int(rng.integers(1, context // 2))
        first = int(rng.integers(0, context - length))
        past[row, first : first + length] = np.nan
    spread = np.nanstd(past, axis=1)
    level = np.nanmean(np.abs(past), axis=1)
    good = np.flatnonzero(spread > _SMALLEST_SPREAD * np.maximum(level, _SMALLEST_SPREAD))
    if not len(good):
        noise = rng.standard_normal(cut.shape, dtype=np.float32)
        return PretrainingWindows(noise[:, :context], noise[:, context:])
    kept = np.resize(good, len(cut)) if len(good) < len(cut) else np.arange(len(cut))
    return PretrainingWindows(past[kept], target[kept])

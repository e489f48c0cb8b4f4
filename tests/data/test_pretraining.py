from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsbench.data.pretraining import LONGEST, PretrainingBatches, PretrainingWindows

Float32 = NDArray[np.float32]

BATCHES = PretrainingBatches(seed=0, batch_size=4)
STEPS = 64
REAL = tuple(
    first + np.arange(length, dtype=np.float32) for first, length in ((1e3, 900), (5e3, 400), (8e3, 130))
)
"""Counting series: a window tells where it was cut, and synthetic values stay far below."""


@pytest.fixture(scope="module")
def windows() -> list[PretrainingWindows]:
    return [BATCHES(step) for step in range(STEPS)]


def assert_equal(a: PretrainingWindows, b: PretrainingWindows) -> None:
    np.testing.assert_array_equal(a.context, b.context)
    np.testing.assert_array_equal(a.target, b.target)


def counting_rows(window: PretrainingWindows) -> NDArray[np.bool_]:
    """Which rows were cut from `REAL`."""
    found: NDArray[np.bool_] = window.target[:, 0] >= 1e3
    return found


def missing_stretches(row: Float32) -> list[tuple[int, int]]:
    """[from, to) of every run of NaN."""
    edges = np.flatnonzero(np.diff(np.isnan(row), prepend=False, append=False))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def relative_spread(context: Float32) -> NDArray[np.float64]:
    values = context.astype(np.float64)
    spread: NDArray[np.float64] = np.nanstd(values, axis=1) / (np.nanmean(np.abs(values), axis=1) + 1e-6)
    return spread


def test_windows_are_a_pure_function_of_seed_rank_and_step(windows: list[PretrainingWindows]) -> None:
    for step in (17, 3, 60):  # any order, from a generator that made nothing else
        assert_equal(PretrainingBatches(seed=0, batch_size=4)(step), windows[step])


def test_steps_seeds_and_ranks_give_windows_of_their_own() -> None:
    variants = [BATCHES, replace(BATCHES, seed=1), replace(BATCHES, rank=1), replace(BATCHES, seed=2**31)]
    cuts = [batches.windows(step, 512, 96) for batches in variants for step in (0, 1, 8)]
    targets = np.concatenate([cut.target for cut in cuts])
    assert len(np.unique(targets[:, -8:], axis=0)) == len(targets) == 4 * len(cuts)


def test_all_ranks_use_the_same_lengths(windows: list[PretrainingWindows]) -> None:
    other = replace(BATCHES, rank=3)
    for step in range(0, STEPS, 4):
        cut = other(step)
        assert (cut.context.shape, cut.target.shape) == (
            windows[step].context.shape,
            windows[step].target.shape,
        )


def test_lengths_stay_within_bounds_and_half_the_steps_are_512_to_96(
    windows: list[PretrainingWindows],
) -> None:
    lengths = [(cut.context.shape[1], cut.target.shape[1]) for cut in windows]
    for context, horizon in lengths:
        assert context >= 48
        assert horizon in (96, 192, 336, 720)
        assert context + horizon <= LONGEST
    assert 0.35 < np.mean([pair == (512, 96) for pair in lengths]) < 0.75
    assert len({context for context, _ in lengths}) > 3
    assert max(horizon for _, horizon in lengths) == 720


def test_targets_are_complete_and_contexts_miss_at_most_one_inner_stretch(
    windows: list[PretrainingWindows],
) -> None:
    gaps = 0
    for cut in windows:
        assert cut.context.dtype == cut.target.dtype == np.float32
        assert len(cut.context) == len(cut.target) == 4
        assert np.isfinite(cut.target).all()
        assert not np.isinf(cut.context).any()
        for row in cut.context:
            stretches = missing_stretches(row)
            gaps += len(stretches)
            assert len(stretches) <= 1
            for first, after in stretches:
                assert after - first < len(row) / 2
                assert after < len(row)  # the latest value is known
    assert 0 < gaps < 0.15 * 4 * STEPS


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**31), step=st.integers(0, 10**6), context=st.integers(48, 700))
def test_no_context_is_flat_and_shapes_are_those_asked_for(seed: int, step: int, context: int) -> None:
    cut = PretrainingBatches(seed, batch_size=2).windows(step, context, 96)
    assert cut.context.shape == (2, context)
    assert cut.target.shape == (2, 96)
    assert (relative_spread(cut.context) > 5e-4).all()


def test_flat_contexts_are_replaced_by_others_of_the_batch() -> None:
    batches = PretrainingBatches(0, 4, real=(np.full(1_500, 7.0, np.float32),), real_share=0.5)
    for step in range(8):
        cut, synthetic = batches.windows(step, 512, 96), BATCHES.windows(step, 512, 96)
        assert (relative_spread(cut.context) > 5e-4).all()
        assert not (cut.target == 7.0).any()
        known = {row.tobytes() for row in synthetic.target}
        assert sum(row.tobytes() in known for row in cut.target) in (0, 4)  # 0: the whole batch was flat


def test_when_every_context_is_flat_then_the_batch_is_white_noise() -> None:
    cut = PretrainingBatches(0, 4, real=(np.full(1_500, 7.0, np.float32),), real_share=1.0).windows(
        5, 512, 96
    )
    assert cut.context.shape == (4, 512)
    assert cut.target.shape == (4, 96)
    for part in (cut.context, cut.target):
        assert part.dtype == np.float32
        assert abs(part.mean()) < 0.2
        assert abs(part.std() - 1) < 0.2


@pytest.mark.parametrize(("context", "horizon"), [(512, 96), (48, 96), (512, 192), (512, 720)])
def test_real_windows_are_cut_verbatim_and_padded_on_the_left(context: int, horizon: int) -> None:
    batches = PretrainingBatches(3, 4, real=REAL, real_share=1.0)
    series_used, padded = set(), 0
    for step in range(24):
        cut = batches.windows(step, context, horizon)
        assert counting_rows(cut).all()
        for past, target in zip(cut.context, cut.target, strict=True):
            series = REAL[int(np.searchsorted([5e3, 8e3], target[0], side="right"))]
            origin = int(target[0] - series[0])
            series_used.add(float(series[0]))
            np.testing.assert_array_equal(target, series[origin : origin + horizon])
            start = max(context - origin, 0)  # steps before the series began
            padded += start > 0
            assert np.isnan(past[:start]).all()
            known = np.flatnonzero(~np.isnan(past))
            np.testing.assert_array_equal(past[known], series[origin - context + known])
            assert len(missing_stretches(past[start:])) <= 1
            assert origin >= min(48, len(series) - horizon)
    assert series_used == {float(series[0]) for series in REAL if len(series) > horizon + 1}
    assert (padded > 0) == (context > 48 or horizon == 96)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (0.3, 0.15, 0.45), (1.0, 1.0, 1.0)])
def test_the_real_share_is_respected(share: float, low: float, high: float) -> None:
    batches = PretrainingBatches(1, 4, real=REAL, real_share=share)
    real = np.mean([counting_rows(batches.windows(step, 256, 96)) for step in range(40)])
    assert low <= real <= high


def test_when_every_real_series_is_too_short_for_the_horizon_then_windows_are_synthetic() -> None:
    short = replace(BATCHES, real=(np.arange(97, dtype=np.float32),), real_share=1.0)
    assert_equal(short.windows(2, 512, 96), BATCHES.windows(2, 512, 96))

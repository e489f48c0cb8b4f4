import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tsbench.metrics.bootstrap import (
    disjoint_block,
    median_interval,
    moving_block_weights,
    relative_change,
)

SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


@SEEDED
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 30))
def test_windows_a_block_apart_share_no_target(windows: int, stride: int, horizon: int) -> None:
    starts = 100 + stride * np.arange(windows)
    block = disjoint_block(starts, horizon)
    assert block == min(windows, max(1, -(-horizon // stride)))


@SEEDED
@given(st.integers(2, 60), st.integers(1, 20))
def test_a_resample_is_made_of_whole_blocks_cut_to_the_number_of_windows(windows: int, block: int) -> None:
    weights = moving_block_weights(windows, block)
    if windows < 2 * block:
        assert weights.shape == (1, windows)
        assert np.isnan(weights).all()
        return
    counts = weights * windows
    np.testing.assert_allclose(counts.sum(axis=1), windows)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    # each window that is drawn stands in a block of at least min(block, rest) neighbours
    if windows % block == 0 and block > 1:
        for row in counts[:50]:
            drawn = np.flatnonzero(np.rint(row))
            runs = np.split(drawn, np.flatnonzero(np.diff(drawn) > 1) + 1)
            assert min(len(run) for run in runs) >= block


def test_single_windows_resample_as_the_ordinary_bootstrap_does() -> None:
    generator = np.random.default_rng(1)
    errors, reference = generator.gamma(2, size=200), generator.gamma(2, size=200)
    ours = relative_change(errors, reference, 1)
    theirs = stats.bootstrap(
        (errors, reference),
        lambda a, b: 100 * (a.mean() / b.mean() - 1),
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=generator,
    ).confidence_interval
    assert ours.value == pytest.approx(100 * (errors.mean() / reference.mean() - 1))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1.5)


def test_blocks_widen_the_interval_of_dependent_windows_to_what_it_is() -> None:
    """Of moving averages over 20 steps, means vary about sqrt(20) times as much as of independent windows."""
    generator = np.random.default_rng(2)
    inside = {1: 0, 40: 0}
    for _ in range(60):
        noise = generator.normal(size=820)
        errors = 5 + np.convolve(noise, np.full(20, 1 / np.sqrt(20)), mode="valid")
        for block in inside:
            interval = relative_change(errors, np.full(len(errors), 5.0), block)
            inside[block] += interval.low <= 0 <= interval.high
    assert inside[1] < 35  # far from 57 of 60
    assert inside[40] > 50


def test_a_constant_factor_is_found_without_doubt() -> None:
    reference = np.random.default_rng(3).gamma(2, size=50)
    change = relative_change(0.9 * reference, reference, 5)
    assert (change.low, change.value, change.high) == pytest.approx((-10, -10, -10))


def test_too_few_blocks_give_no_interval() -> None:
    change = relative_change(np.ones(9), np.ones(9), 5)
    assert change.value == 0
    assert np.isnan([change.low, change.high]).all()


def test_the_interval_of_a_median_agrees_with_scipy() -> None:
    readings = np.random.default_rng(4).gamma(2, size=50)
    ours = median_interval(readings)
    theirs = stats.bootstrap(
        (readings,),
        np.median,
        n_resamples=4_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ours.value == np.median(readings)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.1)


def test_a_single_reading_has_no_interval() -> None:
    alone = median_interval(np.array([3.0]))
    assert alone.value == 3
    assert np.isnan([alone.low, alone.high]).all()

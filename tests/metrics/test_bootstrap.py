import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tsbench.metrics.bootstrap import (
    geometric_skill,
    median_interval,
    moving_block_weights,
)

SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


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


def test_a_forecast_without_any_error_has_all_the_skill_and_no_interval() -> None:
    skill = geometric_skill(np.array([0.0, 0.5]))
    assert skill.value == 100
    assert np.isnan([skill.low, skill.high]).all()
    assert np.isnan(geometric_skill(np.array([0.0, np.nan])).value)

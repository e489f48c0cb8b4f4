import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tsbench.metrics.overlap import (
    disjoint_block,
    mean_error,
    percent_change,
    relative_change,
    small_sample_factor,
)
from tsbench.metrics.significance import diebold_mariano

SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


def overlapping(generator: np.random.Generator, windows: int, block: int) -> NDArray[np.float64]:
    """Moving sums over `block` steps: what windows that share targets look like."""
    return np.convolve(generator.normal(size=windows + block - 1), np.ones(block), mode="valid")


def long_hand(series: NDArray[np.float64], lags: int) -> float:
    """Standard error of the mean, sum by sum."""
    n, mean = len(series), sum(series) / len(series)
    variance = 0.0
    for lag in range(-lags, lags + 1):
        total = 0.0
        for t in range(n):
            if 0 <= t - lag < n:
                total += (series[t] - mean) * (series[t - lag] - mean)
        variance += (1 - abs(lag) / (lags + 1)) * total / n
    h = lags + 1
    factor = (n + 1 - 2 * h + h * (h - 1) / n) / n
    return math.sqrt(variance / n / factor)


@SEEDED
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 30))
def test_windows_a_block_apart_share_no_target(windows: int, stride: int, horizon: int) -> None:
    starts = 100 + stride * np.arange(windows)
    block = disjoint_block(starts, horizon)
    assert block == min(windows, max(1, -(-horizon // stride)))


@SEEDED
@given(st.integers(0, 99), st.integers(1, 6), st.integers(18, 60))
def test_error_and_test_agree_with_sums_written_out(seed: int, block: int, windows: int) -> None:
    generator = np.random.default_rng(seed)
    errors, reference = 2 + overlapping(generator, windows, block), generator.normal(2, 1, windows)
    lags = min(3 * block, windows // 2)
    expected, degrees = long_hand(errors - reference, lags), 1.5 * windows / (lags + 1)
    found = mean_error(errors - reference, block)
    assert (found.lags, found.reason) == (lags, "")
    assert (found.standard_error, found.degrees) == pytest.approx((expected, degrees))
    test = diebold_mariano(errors, reference, block)
    statistic = (errors - reference).mean() / expected
    assert test.lags == lags
    assert (test.statistic, test.p) == pytest.approx((statistic, 2 * stats.t.cdf(-abs(statistic), degrees)))


def test_the_small_sample_factor_agrees_with_a_hand_computed_one() -> None:
    assert small_sample_factor(10, 2) == pytest.approx((10 + 1 - 4 + 2 / 10) / 10)  # 0.72
    assert small_sample_factor(50, 1) == pytest.approx(49 / 50)


@pytest.mark.parametrize("blocks", [3, 7, 29])
def test_the_interval_of_overlapping_windows_covers_the_true_change_as_often_as_it_says(blocks: int) -> None:
    """As counts that chance allows; the truth is no change at all."""
    generator, block, draws = np.random.default_rng(3), 5, 400
    covered = 0
    for _ in range(draws):
        reference = 100 + overlapping(generator, blocks * block, block)
        errors = reference + overlapping(generator, blocks * block, block)
        found = relative_change(errors, reference, block).interval
        covered += found.low <= 0 <= found.high
    assert stats.binom.ppf(0.001, draws, 0.94) <= covered <= stats.binom.ppf(0.999, draws, 0.99)


def test_of_many_independent_windows_the_interval_is_the_bootstraps() -> None:
    generator = np.random.default_rng(1)
    errors, reference = generator.gamma(2, size=4_000), generator.gamma(2, size=4_000)
    ours = relative_change(errors, reference, 1).interval
    theirs = stats.bootstrap(
        (errors, reference),
        lambda a, b, axis: 100 * (a.mean(axis) / b.mean(axis) - 1),
        paired=True,
        vectorized=True,
        n_resamples=2_000,
        method="percentile",
        rng=generator,
    ).confidence_interval
    assert ours.value == pytest.approx(100 * (errors.mean() / reference.mean() - 1))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.4)


@SEEDED
@given(st.integers(0, 99), st.floats(0.01, 1_000))
def test_units_do_not_matter_to_a_change(seed: int, scale: float) -> None:
    errors, reference = np.random.default_rng(seed).gamma(2, size=(2, 40))
    one, other = relative_change(errors, reference, 2), relative_change(scale * errors, scale * reference, 2)
    assert (other.interval.low, other.interval.high) == pytest.approx((one.interval.low, one.interval.high))


def test_a_constant_factor_is_found_without_doubt() -> None:
    reference = np.random.default_rng(3).gamma(2, size=50)
    change = relative_change(0.9 * reference, reference, 5)
    found = change.interval
    assert (found.low, found.value, found.high) == pytest.approx((-10, -10, -10))
    assert change.draws() == pytest.approx(np.full(2_000, -10.0))


def test_below_three_blocks_there_is_no_interval() -> None:
    errors = np.random.default_rng(4).gamma(2, size=14)
    change = relative_change(errors, np.ones(14), 5)
    assert change.value == pytest.approx(100 * (errors.mean() - 1))
    assert np.isnan([change.interval.low, change.interval.high]).all()
    assert np.isnan(change.draws()).all()
    assert np.isfinite(relative_change(np.append(errors, 1.0), np.ones(15), 5).interval.low)


def test_undefined_errors_give_no_interval() -> None:
    errors = np.array([1.0, math.nan] * 20)
    assert math.isnan(relative_change(errors, np.ones(40), 2).interval.low)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(1.0, 0.0), (0.0, 0.0), (1.0, math.inf), (math.inf, 1.0), (math.inf, math.inf), (1.0, 1e308)],
)
def test_against_a_reference_without_errors_or_with_endless_ones_there_is_no_change(
    ours: float, theirs: float
) -> None:
    """Of the last the mean overflows."""
    change = relative_change(np.full(40, ours), np.full(40, theirs), 2)
    assert change.error.reason == "undefined errors"
    interval = change.interval
    assert np.isnan([change.value, interval.low, interval.high, *change.draws()]).all()
    if theirs != 1e308:
        assert math.isnan(percent_change(ours, theirs))


@pytest.mark.filterwarnings("error")
def test_a_perfect_forecast_is_a_change_of_minus_hundred_percent() -> None:
    change = relative_change(np.zeros(40), np.ones(40), 2).interval
    assert (change.low, change.value, change.high) == (-100, -100, -100)
    assert percent_change(0.0, 1.0) == -100


def test_draws_are_those_of_the_interval() -> None:
    errors, reference = np.random.default_rng(4).gamma(2, size=(2, 60))
    change = relative_change(errors, reference, 4)
    drawn = change.draws()
    assert drawn.shape == (2_000,)
    found = change.interval
    expected = (found.low, found.value, found.high)
    assert np.quantile(drawn, [0.025, 0.5, 0.975]) == pytest.approx(
        expected, abs=0.01 * (found.high - found.low)
    )


def test_draws_at_other_degrees_of_freedom_are_in_step() -> None:
    """Of horizons that are averaged the windows lie in the same rows, so their errors do not cancel."""
    errors, reference = np.random.default_rng(6).gamma(2, size=(2, 60))
    first, second = (relative_change(errors, reference, block).draws() for block in (2, 15))
    assert stats.spearmanr(first, second).statistic == pytest.approx(1)

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tsbench.metrics.bootstrap import geometric_skill, nested_mean
from tsbench.metrics.significance import (
    benjamini_hochberg,
    diebold_mariano,
    holm,
    win_rate,
)

SEEDED = settings(deadline=None, max_examples=25, derandomize=True)
PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


def overlapping(generator: np.random.Generator, windows: int, block: int) -> NDArray[np.float64]:
    """Moving sums over `block` steps: what windows that share targets look like."""
    return np.convolve(generator.normal(size=windows + block - 1), np.ones(block), mode="valid")


@SEEDED
@given(st.integers(0, 99), st.floats(0.01, 1_000))
def test_swapping_the_methods_turns_the_sign_and_units_do_not_matter(seed: int, scale: float) -> None:
    errors, reference = np.random.default_rng(seed).gamma(2, size=(2, 40))
    found, swapped = diebold_mariano(errors, reference, 2), diebold_mariano(reference, errors, 2)
    assert swapped.statistic == pytest.approx(-found.statistic)
    assert swapped.p == pytest.approx(found.p)
    scaled = diebold_mariano(scale * errors, scale * reference, 2)
    assert (scaled.statistic, scaled.p) == pytest.approx((found.statistic, found.p))


@pytest.mark.parametrize("blocks", [3, 7, 29])
def test_without_a_difference_five_percent_are_found_different_at_most(blocks: int) -> None:
    """Of windows that share targets, as counts that chance allows; the plain t-test finds far more."""
    generator, block, draws = np.random.default_rng(1), 5, 400
    series = [overlapping(generator, blocks * block, block) for _ in range(draws)]
    found = np.array([diebold_mariano(one, np.zeros_like(one), block).p for one in series])
    assert (found < 0.05).sum() <= stats.binom.ppf(0.999, draws, 0.06)
    assert (found < 0.01).sum() <= stats.binom.ppf(0.999, draws, 0.015)
    assert (found < 0.2).sum() >= stats.binom.ppf(0.001, draws, 0.1)  # neither does it never find any
    naive = np.array([stats.ttest_1samp(one, 0).pvalue for one in series])
    assert (naive < 0.05).mean() > 0.3


def test_a_clear_difference_is_found() -> None:
    generator = np.random.default_rng(2)
    difference = overlapping(generator, 200, 4) - 4
    assert diebold_mariano(10 + difference, np.full(200, 10.0), 4).p < 1e-4


@pytest.mark.parametrize(
    ("errors", "reference", "reason"),
    [
        (np.ones(40), np.ones(40), "equal in every window"),
        (np.arange(40.0), np.arange(40.0) + 0.1, "the difference never varies"),
        (np.arange(8.0) % 3, np.ones(8), "2.67 blocks of windows; a test takes 3"),
        (np.array([1.0, np.nan] * 20), np.ones(40), "undefined errors"),
    ],
)
def test_what_cannot_be_tested_has_a_reason_and_no_p_value(
    errors: NDArray[np.float64], reference: NDArray[np.float64], reason: str
) -> None:
    found = diebold_mariano(errors, reference, 3)
    assert found.reason == reason
    assert math.isnan(found.p)
    assert math.isnan(found.statistic)


def test_holm_agrees_with_a_hand_computed_example() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1, 1])


def test_benjamini_hochberg_agrees_with_a_hand_computed_example() -> None:
    assert benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.02, 0.04, 0.04, 0.02])


@SEEDED
@given(PROBABILITIES)
def test_a_correction_never_lowers_a_p_value_and_keeps_their_order(p: NDArray[np.float64]) -> None:
    order = np.argsort(p)
    for corrected in (holm(p), benjamini_hochberg(p)):
        assert (corrected >= p - 1e-15).all()
        assert (corrected <= 1).all()
        assert (np.diff(corrected[order]) >= 0).all()
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


def test_what_was_not_tested_does_not_count_in_a_correction() -> None:
    for correct in (holm, benjamini_hochberg):
        assert correct(np.array([0.01, math.nan, 0.04])) == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)
        assert correct(np.array([])).shape == (0,)
        assert np.isnan(correct(np.array([math.nan]))).all()


def test_a_tie_is_half_a_win() -> None:
    assert win_rate(np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 2, 5])) == (1 + 0.5 + 0 + 1) / 4


def test_skill_is_one_minus_the_geometric_mean_of_the_ratios() -> None:
    skill = geometric_skill(np.array([0.5, 0.8, 1.25]))
    assert skill.value == pytest.approx(100 * (1 - 0.5 ** (1 / 3)))
    assert -25 <= skill.low < skill.value < skill.high <= 50
    alone = geometric_skill(np.array([0.9]))
    assert alone.value == pytest.approx(10)
    assert math.isnan(alone.low)


@SEEDED
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6).map(np.array), st.floats(0.1, 10))
def test_skill_of_swapped_methods_is_of_the_inverse_ratio(ratios: NDArray[np.float64], c: float) -> None:
    assume(np.ptp(ratios) > 0.01)
    forward, back = geometric_skill(ratios), geometric_skill(1 / ratios)
    assert (1 - forward.value / 100) * (1 - back.value / 100) == pytest.approx(1)
    assert forward.low <= forward.value <= forward.high
    assert 1 - geometric_skill(c * ratios).value / 100 == pytest.approx(c * (1 - forward.value / 100))


def test_the_nested_interval_is_as_wide_as_both_sources_of_chance_make_it() -> None:
    """Against the formula: (variance between data sets + mean variance within) / number of data sets."""
    generator = np.random.default_rng(5)
    values = generator.normal(0, 2, 12)
    resampled = values[:, None] + generator.normal(0, 3, (12, 2_000))
    interval = nested_mean(values, resampled)
    deviation = math.sqrt((values.var() + resampled.var(axis=1).mean()) / 12)
    assert interval.value == values.mean()
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * deviation, rel=0.07)
    assert math.isnan(nested_mean(values[:1], resampled[:1]).low)
    resampled[3] = math.nan
    assert math.isnan(nested_mean(values, resampled).high)

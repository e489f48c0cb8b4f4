import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.data.synthetic import profiles, seasonal
from tsbench.data.synthetic.primitives import Series, standardise


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def autocorrelation(series: Series, lag: int) -> Series:
    scaled = standardise(series)
    correlation: Series = (scaled[:, lag:] * scaled[:, :-lag]).mean(axis=1)
    return correlation


def test_profiles_are_standardised_and_of_many_shapes() -> None:
    drawn = profiles.random_profiles(rng(), 2000)
    np.testing.assert_allclose(drawn.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(drawn.std(axis=1), 1, atol=1e-4)
    flat = (np.abs(np.diff(drawn, axis=1)) < 1e-6).mean(axis=1)
    assert 0.1 < (flat > 0.2).mean() < 0.6, "plateaus, arcs and clipped waves are flat in parts"
    assert (drawn.max(axis=1) > 4).mean() > 0.03, "spikes"


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(4, 400), st.integers(0, 1000))
def test_a_profile_read_at_the_phase_repeats_each_period(period: int, seed: int) -> None:
    phase = seasonal.phases(rng(seed), np.full((3, 1), period, np.float32), 2 * period)
    series = profiles.read_profiles(profiles.random_profiles(rng(seed), 3), phase)
    change = np.abs(series[:, period:] - series[:, :period])
    assert np.median(change) < 1e-2


def test_reading_a_profile_equals_periodic_interpolation() -> None:
    table = profiles.random_profiles(rng(), 40)
    phase = rng(1).uniform(0, 9, (40, 77)).astype(np.float32)
    grid = np.arange(profiles.POINTS) / profiles.POINTS
    expected = [np.interp(p % 1, grid, row, period=1) for p, row in zip(phase, table, strict=True)]
    np.testing.assert_allclose(profiles.read_profiles(table, phase), expected, atol=5e-3)


def test_periods_follow_their_weights() -> None:
    drawn = seasonal.draw_periods(rng(), seasonal.PERIODS, 20_000)[:, 0]
    total = sum(seasonal.PERIODS.values())
    for period, weight in seasonal.PERIODS.items():
        assert (drawn == period).mean() == pytest.approx(weight / total, abs=0.012)


def test_seasonal_mixtures_correlate_at_some_table_period() -> None:
    series = seasonal.seasonal_mixture(rng(), 500, 1232)
    best = np.max([autocorrelation(series, period) for period in (24, 96, 144, 168, 288)], axis=0)
    assert np.median(best) > 0.4


@pytest.mark.parametrize("period", [24, 96])
def test_calendar_days_repeat_weekly_better_than_daily(period: int) -> None:
    phase = seasonal.phases(rng(), np.full((400, 1), period, np.float32), 21 * period)
    series = seasonal.calendar_profile(rng(), phase)
    weekly, daily = autocorrelation(series, 7 * period), autocorrelation(series, period)
    assert (weekly > 0.6).all()
    assert (weekly > daily).mean() > 0.9


def test_one_or_two_days_of_seven_are_rest_days() -> None:
    phase = np.tile(np.arange(0.5, 14, dtype=np.float32), (300, 1))
    noons = seasonal.calendar_profile(rng(), phase)
    np.testing.assert_allclose(noons[:, :7], noons[:, 7:], atol=1e-5)
    away = np.abs(noons[:, :7] - np.median(noons[:, :7], axis=1, keepdims=True)) > 1e-5
    assert set(away.sum(axis=1)) <= {0, 1, 2}
    assert away.sum(axis=1).mean() == pytest.approx(1.75, abs=0.2)


def test_amplitude_by_cycle_is_constant_in_law_and_continuous() -> None:
    phase = seasonal.phases(rng(), np.full((3000, 1), 24, np.float32), 240)
    size = seasonal.by_cycle(rng(), phase)
    assert size[:, ::24].std() == pytest.approx(0.85, abs=0.2)
    assert np.abs(np.diff(size, axis=1)).max() < 8 / 24

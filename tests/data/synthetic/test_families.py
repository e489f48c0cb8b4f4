import numpy as np
import pytest

from tsbench.data.synthetic import intermittent, load, weather
from tsbench.data.synthetic.primitives import Series, standardise
from tsbench.data.synthetic.seasonal import phases


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def days() -> Series:
    """Phases of 300 series of ten days with 24 steps."""
    return phases(rng(5), np.full((300, 1), 24, np.float32), 240)


def test_radiation_is_never_negative_and_zero_at_night(days: Series) -> None:
    light = weather._radiation(rng(), days)
    assert light.min() == 0
    assert light.max() <= 1
    hour = days - np.floor(days)
    assert not light[(hour < 0.15) | (hour > 0.85)].any()
    assert (light[np.abs(hour - 0.5) < 0.1] > 0).all()


def test_humidity_saturates_in_many_series(days: Series) -> None:
    humidity = weather._humidity(rng(), days)
    at_limit = (humidity == humidity.max(axis=1, keepdims=True)).mean(axis=1)
    assert 0.2 < (at_limit > 0.05).mean() < 0.9


def test_rain_is_dry_most_of_the_time_and_comes_in_bursts(days: Series) -> None:
    wet = weather._rain(rng(), days) > 0
    assert 0.05 < wet.mean() < 0.45
    again = wet[:, 1:][wet[:, :-1]].mean()
    assert again > 1.5 * wet.mean()


def test_wind_speed_is_positive_and_skewed(days: Series) -> None:
    speed = weather._wind_speed(rng(), days)
    assert (speed > 0).all()
    scaled = standardise(speed)
    assert (scaled**3).mean() > 0.5


def test_wind_direction_stays_on_the_circle(days: Series) -> None:
    angle = weather._wind_direction(rng(), days)
    assert angle.min() >= 0
    assert angle.max() <= 1


def test_temperature_and_pressure_are_smooth(days: Series) -> None:
    for maker in (weather._temperature, weather._pressure):
        scaled = standardise(maker(rng(), days))
        assert np.median((scaled[:, 1:] * scaled[:, :-1]).mean(axis=1)) > 0.85


def test_loads_repeat_daily_and_weekly_but_not_exactly() -> None:
    scaled = standardise(load.load(rng(), 600, 1232))
    best = np.max([(scaled[:, p:] * scaled[:, :-p]).mean(axis=1) for p in (24, 48, 96, 144, 288)], axis=0)
    assert 0.25 < np.median(best) < 0.85


def test_some_loads_have_outages_at_zero_and_some_a_floor() -> None:
    series = load.load(rng(), 1000, 480)
    assert 0.06 < ((series == 0).sum(axis=1) > 5).mean() < 0.2
    at_floor = (series == series.min(axis=1, keepdims=True)).mean(axis=1) > 0.05
    assert 0.15 < at_floor.mean() < 0.45


def test_counts_are_counts_with_poisson_spread() -> None:
    counts = intermittent._counts(rng(), 200, 600)
    np.testing.assert_array_equal(counts, np.rint(counts))
    assert counts.min() == 0
    assert (counts.var(axis=1) > 0.7 * counts.mean(axis=1)).mean() > 0.98


def test_demand_is_intermittent() -> None:
    zero = (intermittent._demand(rng(), 300, 600) == 0).mean(axis=1)
    assert np.quantile(zero, 0.1) > 0.3
    assert 0.6 < np.median(zero) < 0.97


def test_states_hold_few_levels() -> None:
    series = intermittent._states(rng(), 200, 600)
    jumps = np.abs(np.diff(series, axis=1)) > 0.5
    assert jumps.mean() < 0.1
    assert jumps.any(axis=1).mean() > 0.5


def test_when_every_step_would_switch_states_still_fit() -> None:
    for seed in range(300):
        assert intermittent._states(rng(seed), 4, 2).shape == (4, 2)


def test_a_schedule_is_off_most_of_the_time() -> None:
    series = intermittent._schedule(rng(), 200, 600)
    assert 0.5 < (np.abs(series) < 0.3).mean() < 0.9

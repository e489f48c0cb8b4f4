import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.data.synthetic import primitives
from tsbench.data.synthetic.primitives import Series, autoregressive, filter_groups, white


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("a1", "a2"), [(0.9, 0.0), (1.6, -0.8), (0.2, 0.5)])
def test_autoregressive_follows_the_recurrence_from_the_third_step_on(a1: float, a2: float) -> None:
    noise = white(rng(), 40, 200)
    series = autoregressive(rng(1), noise, np.full(filter_groups(40), a1), np.full(filter_groups(40), a2))
    expected = series.astype(np.float64).copy()
    residual = series[:, 2:] - a1 * series[:, 1:-1] - a2 * series[:, :-2]
    scale = (residual * noise[:, 2:]).sum() / (noise[:, 2:] ** 2).sum()
    for step in range(2, 200):
        expected[:, step] = a1 * expected[:, step - 1] + a2 * expected[:, step - 2] + scale * noise[:, step]
    np.testing.assert_allclose(series, expected, atol=2e-4)


@pytest.mark.parametrize(("a1", "a2"), [(0.9, 0.0), (0.999, 0.0), (1.6, -0.8)])
def test_autoregressive_is_stationary_with_unit_variance_from_the_first_step(a1: float, a2: float) -> None:
    series = autoregressive(rng(), white(rng(1), 20_000, 12), a1, a2)
    np.testing.assert_allclose(series.var(axis=0), 1, atol=0.05)
    lag1 = (series[:, 1:] * series[:, :-1]).mean(axis=0)
    np.testing.assert_allclose(lag1, a1 / (1 - a2), atol=0.05)


def test_when_groups_differ_each_keeps_its_coefficient() -> None:
    coefficients = np.array([0.0, 0.9])
    series = autoregressive(rng(), white(rng(1), 32, 5000), coefficients)
    lag1 = (series[:, 1:] * series[:, :-1]).mean(axis=1)
    np.testing.assert_allclose(lag1[:16], 0.0, atol=0.1)
    np.testing.assert_allclose(lag1[16:], 0.9, atol=0.25)


def test_low_pass_equals_the_exponential_average() -> None:
    series = white(rng(), 3, 50)
    smooth = primitives.low_pass(series, np.array([4.0], np.float32))
    level, decay = series[:, 0].copy(), np.exp(-0.25)
    for step in range(50):
        level = decay * level + (1 - decay) * series[:, step]
        np.testing.assert_allclose(smooth[:, step], level, atol=1e-5)


def test_grainy_noise_is_the_sum_of_its_parts() -> None:
    count = 3000
    size, grain = np.full((count, 1), 2, np.float32), np.zeros((count, 1), np.float32)
    assert primitives.grainy(rng(), size, grain, 64, 10).std() == pytest.approx(2, rel=0.02)
    assert primitives.grainy(rng(), grain, size, 64, 10).std() == pytest.approx(2, rel=0.02)


def test_a_wandering_level_is_smooth_and_forgets_slowly() -> None:
    level = primitives.wandering(rng(), 4000, 400, 40, 40)
    assert level.shape == (4000, 400)
    assert level.std() == pytest.approx(1, abs=0.1)
    correlation = [(level[:, :200] * level[:, lag : 200 + lag]).mean() / level.var() for lag in (40, 120)]
    np.testing.assert_allclose(correlation, np.exp([-1, -3]), atol=0.08)
    assert np.abs(np.diff(level, 3, axis=1)).max() < 0.05


def test_smooth_curves_are_standard_normal_at_every_step() -> None:
    curves = primitives.smooth_curves(rng(), 20_000, 50, 4)
    np.testing.assert_allclose(curves.std(axis=0), 1, atol=0.03)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 60), st.integers(2, 20))
def test_interpolated_rows_equal_numpy(count: int, length: int, width: int) -> None:
    generator = rng(count)
    table = white(generator, count, width)
    position = (width - 1) * np.minimum(generator.random((count, length), dtype=np.float32), 0.999)
    expected = np.stack([np.interp(p, np.arange(width), t) for p, t in zip(position, table, strict=True)])
    np.testing.assert_allclose(primitives.interpolate_rows(table, position), expected, atol=1e-5)
    blocked = primitives.by_blocks(primitives.interpolate_rows, table, position)
    np.testing.assert_array_equal(blocked, primitives.interpolate_rows(table, position))


def test_impulses_come_at_the_given_rate() -> None:
    series = primitives.impulses(rng(), 2000, 300, np.full(2000, 3.0))
    assert (series != 0).sum(axis=1).mean() == pytest.approx(3, abs=0.15)


def test_stretches_are_contiguous_and_no_longer_than_asked() -> None:
    mask = primitives.stretches(rng(), 500, 200, 0.1)
    assert mask.sum(axis=1).max() <= 21
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(int)
    assert (np.abs(np.diff(padded, axis=1)).sum(axis=1) <= 2).all()


def test_when_a_row_is_constant_then_standardise_gives_zero() -> None:
    series: Series = np.stack([np.full(50, 0.1), np.zeros(50), np.arange(50)]).astype(np.float32)
    scaled = primitives.standardise(series)
    assert not scaled[:2].any()
    assert scaled[2].mean() == pytest.approx(0, abs=1e-6)
    assert scaled[2].std() == pytest.approx(1, abs=1e-5)


def test_split_rows_gives_each_row_once() -> None:
    parts = primitives.split_rows(rng(), (0.5, 0.3, 0.2), 1000)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert [len(part) / 1000 for part in parts] == pytest.approx([0.5, 0.3, 0.2], abs=0.06)

import numpy as np
import pytest

from tsbench.data.synthetic import effects
from tsbench.data.synthetic.primitives import Series, standardise, white


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def waves() -> Series:
    phase = rng(7).random((60, 1))
    return standardise(np.sin(2 * np.pi * (np.arange(600) / 24 + phase)).astype(np.float32))


@pytest.mark.parametrize(
    "effect", [effect for effect, _ in effects.EFFECTS], ids=lambda effect: effect.__name__
)
@pytest.mark.parametrize("shape", [(0, 50), (1, 48), (20, 300)])
def test_every_effect_keeps_shape_type_and_input(effect: effects.Effect, shape: tuple[int, int]) -> None:
    series = standardise(white(rng(), *shape))
    before = series.copy()
    changed = standardise(effect(rng(), series))
    assert changed.shape == shape
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    np.testing.assert_array_equal(series, before)


def test_a_change_of_clock_stretches_the_period(waves: Series) -> None:
    slow = standardise(effects.change_clock(rng(), waves))
    crossings = (np.diff(np.sign(slow), axis=1) != 0).sum(axis=1)
    assert crossings.max() <= 51
    assert crossings.min() >= 18
    np.testing.assert_allclose(slow[:, 0], waves[:, 0], atol=0.3)


def test_level_shifts_are_steps(waves: Series) -> None:
    added = effects.level_shift(rng(), waves) - waves
    moves = (np.abs(np.diff(added, axis=1)) > 1e-4).sum(axis=1)
    assert moves.max() <= 8
    assert moves.mean() == pytest.approx(1.5, abs=0.6)


def test_saturation_only_cuts(waves: Series) -> None:
    cut = effects.saturation(rng(), waves)
    inside = (cut > cut.min(axis=1, keepdims=True)) & (cut < cut.max(axis=1, keepdims=True))
    np.testing.assert_array_equal(cut[inside], waves[inside])
    assert (np.diff(cut, axis=1) == 0).any(axis=1).mean() > 0.7


def test_rounding_leaves_multiples_of_a_step(waves: Series) -> None:
    rounded = effects.rounding(rng(), waves)
    assert np.abs(rounded - waves).max() <= 0.2501
    assert max(len(np.unique(row)) for row in rounded) < 160


def test_smoothing_equals_the_mean_of_the_last_steps() -> None:
    series = standardise(white(rng(), 5, 100))
    width = rng(3).integers(2, 13, (5, 1))[:, 0]
    smooth = effects.smoothing(rng(3), series)
    for row in range(5):
        expected = [series[row, max(0, t - width[row] + 1) : t + 1].mean() for t in range(100)]
        np.testing.assert_allclose(smooth[row], expected, atol=1e-5)


def test_a_stuck_sensor_repeats_one_value(waves: Series) -> None:
    stuck = effects.stuck(rng(), waves)
    same = np.diff(stuck, axis=1) == 0
    assert same.sum(axis=1).max() <= 72
    untouched = stuck == waves
    assert (untouched.mean(axis=1) > 0.87).all()


def test_mixing_is_convex() -> None:
    series, pool = np.full((50, 4), 1, np.float32), np.full((9, 4), 3, np.float32)
    mixture = effects.mix(rng(), series, pool)
    assert (mixture > 1).all() and (mixture < 3).all()
    assert np.ptp(mixture, axis=1).max() < 1e-6


def test_all_effects_together_keep_series_standardised(waves: Series) -> None:
    effects.apply_effects(rng(), waves)
    np.testing.assert_allclose(waves.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(waves.std(axis=1), 1, atol=1e-3)

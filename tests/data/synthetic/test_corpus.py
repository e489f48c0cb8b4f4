import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.data.synthetic.corpus import FAMILIES, Family, generate
from tsbench.data.synthetic.effects import EFFECTS


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_weights_are_shares_that_sum_to_one() -> None:
    assert sum(family.weight for family in FAMILIES) == pytest.approx(1, abs=1e-12)
    assert all(0 < family.weight < 1 and 0 <= family.touched <= 1 for family in FAMILIES)
    assert all(0 < probability < 1 for _, probability in EFFECTS)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_the_same_state_gives_the_same_series_and_the_next_state_others() -> None:
    generator = rng(3)
    first, second = generate(generator, 64, 200), generate(generator, 64, 200)
    np.testing.assert_array_equal(first, generate(rng(3), 64, 200))
    assert not np.allclose(first, second)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(1, 40), st.integers(16, 300), st.integers(0, 10_000))
def test_series_are_finite_and_standardised(count: int, length: int, seed: int) -> None:
    series = generate(rng(seed), count, length)
    assert series.shape == (count, length)
    assert series.dtype == np.float32
    assert np.isfinite(series).all()
    np.testing.assert_allclose(series.mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(series.std(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("shape", [(0, 48), (1, 48), (50, 1232)])
def test_every_family_gives_finite_float32(family: Family, shape: tuple[int, int]) -> None:
    series = family.generate(rng(), *shape)
    assert series.shape == shape
    assert series.dtype == np.float32
    assert np.isfinite(series).all()


def test_a_large_draw_has_no_dead_row() -> None:
    series = generate(rng(11), 2000, 600)
    assert np.isfinite(series).all()
    np.testing.assert_allclose(series.std(axis=1), 1, atol=1e-3)
    assert np.abs(series).max() < 25


def test_much_of_the_corpus_can_be_forecast() -> None:
    series = generate(rng(1), 1000, 800)
    lags = (1, 24, 48, 96, 144, 168, 288)
    best = np.max([(series[:, lag:] * series[:, :-lag]).mean(axis=1) for lag in lags], axis=0)
    assert (best > 0.5).mean() > 0.7

import numpy as np
import pytest
from scipy import signal, stats

from tsbench.data.synthetic import stochastic
from tsbench.data.synthetic.primitives import standardise


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_increments_of_most_random_walks_are_white() -> None:
    walks = stochastic.random_walk(rng(), 600, 1000)
    steps = standardise(np.diff(walks, axis=1))
    for lag in (1, 2, 24):
        correlation = (steps[:, lag:] * steps[:, :-lag]).mean(axis=1)
        assert abs(np.median(correlation)) < 0.02
        assert (np.abs(correlation) < 0.13).mean() > 0.75


def test_random_walks_spread_as_the_square_root_of_time() -> None:
    walks = stochastic.random_walk(rng(), 4000, 400)
    spread = [np.median(np.abs(walks[:, lag] - walks[:, 0])) for lag in (25, 100, 399)]
    assert spread[1] / spread[0] == pytest.approx(2, rel=0.2)
    assert spread[2] / spread[1] == pytest.approx(2, rel=0.2)


def test_volatility_clusters_where_increments_do_not_correlate() -> None:
    size = stochastic.volatility(rng(), 200, 1000)
    steps = standardise(size * rng(1).standard_normal((200, 1000), dtype=np.float32))
    squares = standardise(steps**2)
    assert abs((steps[:, 1:] * steps[:, :-1]).mean()) < 0.01
    assert (squares[:, 1:] * squares[:, :-1]).mean() > 0.1


def test_some_random_walks_have_heavy_tails() -> None:
    kurtosis = stats.kurtosis(np.diff(stochastic.random_walk(rng(), 500, 1000), axis=1), axis=1)
    assert 0.3 < (kurtosis > 1).mean() < 0.8


def test_coloured_noise_has_a_straight_spectrum_in_logarithms() -> None:
    noise = stochastic.coloured_noise(rng(), 400, 2048)
    frequency, power = signal.periodogram(noise, window="hann")
    inner = slice(8, 512)
    logs = np.log(power[:, inner])
    slopes = np.polynomial.polynomial.polyfit(np.log(frequency[inner]), logs.T, 1)[1]
    assert np.quantile(-slopes, [0.02, 0.5, 0.98]) == pytest.approx([0.33, 1.25, 2.16], abs=0.2)


def test_autoregressions_are_finite_and_persistent() -> None:
    series = standardise(stochastic.autoregression(rng(), 400, 500))
    assert np.isfinite(series).all()
    assert np.median((series[:, 1:] * series[:, :-1]).mean(axis=1)) > 0.7

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.naive2 import Naive2, is_seasonal, load, seasonal_indices
from tsbench.errors import TsbenchError


def slow_indices(x: list[float], m: int) -> list[float]:
    """R's decompose, written out."""
    ratios: dict[int, list[float]] = {phase: [] for phase in range(m)}
    half = m // 2
    for t in range(half, len(x) - half):
        window = x[t - half : t + half + 1]
        if m % 2 == 0:
            window = [window[0] / 2, *window[1:-1], window[-1] / 2]
        ratios[t % m].append(x[t] / (sum(window) / m))
    means = [sum(ratios[phase]) / len(ratios[phase]) for phase in range(m)]
    return [mean / (sum(means) / m) for mean in means]


def slow_test(x: list[float], m: int) -> bool:
    """The competition's SeasonalityTest, written out."""
    n, mean = len(x), sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x)
    r = [sum((x[t] - mean) * (x[t + k] - mean) for t in range(n - k)) / variance for k in range(1, m + 1)]
    return abs(r[-1]) > 1.645 / math.sqrt(n) * math.sqrt(1 + 2 * sum(value**2 for value in r[:-1]))


def series(n: int, m: int, strength: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pattern = np.exp(strength * rng.normal(size=m))
    return np.asarray(100 * (1 + 0.01 * np.arange(n)) * np.resize(pattern, n) * rng.normal(1, 0.05, n))


@pytest.mark.parametrize(("n", "m"), [(12, 4), (37, 12), (26, 5), (73, 24), (9, 3)])
def test_indices_and_test_equal_the_written_out_definitions(n: int, m: int) -> None:
    rows = [series(n, m, strength, seed) for seed, strength in enumerate([0, 0.02, 0.05, 0.1, 0.3, 1])]
    values = np.stack(rows)
    np.testing.assert_allclose(
        seasonal_indices(values, m), [slow_indices(list(row), m) for row in rows], rtol=1e-12
    )
    assert is_seasonal(values, m).tolist() == [slow_test(list(row), m) for row in rows]
    assert 0 < is_seasonal(values, m).sum() < len(rows) or n < 20


@pytest.mark.parametrize("m", [4, 7])
def test_a_purely_seasonal_series_is_continued_exactly(m: int) -> None:
    pattern = np.linspace(1, 2, m) * 10
    context = torch.from_numpy(np.resize(pattern, 5 * m + 2)).float()[None]
    forecast = Naive2(m).predict(context, 2 * m + 1)
    expected = np.resize(np.roll(pattern, -2), 2 * m + 1)
    np.testing.assert_allclose(forecast[0, 0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "m"),
    [
        (np.arange(1.0, 40), 1),
        (series(11, 4, 1, 0), 4),  # fewer than three seasons
        (np.full(40, 5.0), 4),
        (series(40, 4, 1, 0) - 100, 4),  # not all positive
        (np.array([3.0]), 12),
    ],
    ids=["no season", "short", "constant", "negative", "one value"],
)
def test_without_a_season_the_last_value_is_repeated(values: np.ndarray, m: int) -> None:
    context = torch.from_numpy(values).float()[None]
    assert torch.equal(Naive2(m).predict(context, 5), context[:, None, -1:].expand(1, 1, 5))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.01, 100), st.integers(1, 30))
def test_a_row_follows_its_unit_and_depends_on_no_other(seed: int, unit: float, horizon: int) -> None:
    rows = torch.from_numpy(np.stack([series(30, 6, 0.3, seed), series(30, 6, 0, seed + 1)])).float()
    together = Naive2(6).predict(rows, horizon)
    assert together.shape == (2, 1, horizon)
    assert torch.equal(together[1:], Naive2(6).predict(rows[1:], horizon))
    assert torch.equal(together[..., :1], Naive2(6).predict(rows, 1))
    torch.testing.assert_close(Naive2(6).predict(rows * unit, horizon), together * unit, rtol=1e-4, atol=0)


def test_it_is_made_with_the_season_of_the_data_and_has_no_encoder() -> None:
    backbone = load(BackboneOptions("naive2", season=24))
    assert (backbone.season, backbone.identity) == (24, "naive2-m24-v1")
    with pytest.raises(TsbenchError, match="no encoder"):
        backbone.embed(torch.ones(1, 3))
    with pytest.raises(TsbenchError, match="no roll-out 'expand'"):
        load(BackboneOptions("naive2", rollout="expand"))

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.naive import SeasonalNaive, load
from tsbench.errors import TsbenchError

LAST = SeasonalNaive("naive-last", season=1)
DAILY = SeasonalNaive("naive-seasonal", season=24)


def series(batch: int = 6, length: int = 100) -> torch.Tensor:
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(11)).cumsum(dim=1)


def brute_force(row: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """[9, H]: one value at a time, as the definition reads."""
    errors = [row[t] - row[t - season] for t in range(season, len(row))]
    forecast = np.empty((9, horizon))
    for step in range(1, horizon + 1):
        point = row[len(row) - season + (step - 1) % season]
        seasons_ahead = math.ceil(step / season)
        for j in range(9):
            offset = np.quantile(errors, (j + 1) / 10) - np.median(errors)
            forecast[j, step - 1] = point + math.sqrt(seasons_ahead) * offset
    return forecast


@pytest.mark.parametrize(("backbone", "horizon"), [(LAST, 5), (DAILY, 24), (DAILY, 60), (DAILY, 7)])
def test_forecast_equals_the_definition_taken_one_value_at_a_time(
    backbone: SeasonalNaive, horizon: int
) -> None:
    context = series()
    expected = np.stack([brute_force(row, backbone.season, horizon) for row in context.double().numpy()])
    np.testing.assert_allclose(backbone.predict(context, horizon), expected, rtol=1e-5, atol=1e-4)


def test_median_is_the_repeated_value_bit_for_bit() -> None:
    context = series() * 1e3 + 0.1
    assert torch.equal(LAST.predict(context, 30)[:, 4], context[:, -1:].expand(-1, 30))
    season = context[:, -24:]
    assert torch.equal(DAILY.predict(context, 60)[:, 4], season.repeat(1, 3)[:, :60])


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    length=st.integers(24, 60),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-100, 100),
)
def test_forecasts_ascend_and_follow_a_change_of_units(
    seed: int, length: int, scale: float, shift: float
) -> None:
    context = torch.randn(3, length, generator=torch.Generator().manual_seed(seed))
    for backbone in (LAST, DAILY):
        forecast = backbone.predict(context, 50)
        assert (forecast.diff(dim=1) >= 0).all()
        moved = backbone.predict(context * scale + shift, 50)
        tolerance = 1e-4 * (scale + abs(shift))
        torch.testing.assert_close(moved, forecast * scale + shift, rtol=1e-4, atol=tolerance)


def test_intervals_of_a_random_walk_cover_what_they_claim() -> None:
    walks = torch.randn(4000, 220, generator=torch.Generator().manual_seed(5)).cumsum(dim=1)
    forecast = LAST.predict(walks[:, :200], 20)
    inside = (walks[:, 200:] >= forecast[:, 0]) & (walks[:, 200:] <= forecast[:, 8])
    assert inside.float().mean(dim=0).sub(0.8).abs().max() < 0.03


@pytest.mark.parametrize("backbone", [LAST, DAILY])
def test_constant_context_gives_a_constant_forecast_of_zero_width(backbone: SeasonalNaive) -> None:
    assert torch.equal(backbone.predict(torch.full((2, 48), -3.7), 40), torch.full((2, 9, 40), -3.7))


def test_context_of_exactly_one_season_gives_zero_width() -> None:
    context = series(length=24)
    assert torch.equal(DAILY.predict(context, 24), context[:, None, :].expand(-1, 9, -1))


def test_context_shorter_than_a_season_is_refused() -> None:
    with pytest.raises(
        TsbenchError, match=r"season of 24 steps but the lookback is 23; use a lookback of at"
    ):
        DAILY.predict(series(length=23), 5)


@pytest.mark.parametrize("backbone", [LAST, DAILY])
def test_a_shorter_horizon_is_the_prefix_of_a_longer_one(backbone: SeasonalNaive) -> None:
    assert backbone.prefix_consistent
    assert torch.equal(backbone.predict(series(), 31), backbone.predict(series(), 90)[..., :31])


def test_rows_do_not_influence_each_other() -> None:
    context = series(batch=4099, length=30)
    together = DAILY.predict(context, 3)
    for row in (0, 1, 4095, 4096, 4098):
        assert torch.equal(DAILY.predict(context[row : row + 1], 3)[0], together[row])


def test_result_has_the_shape_and_type_of_the_protocol() -> None:
    forecast = DAILY.predict(series(batch=1), 10)
    assert forecast.shape == (1, 9, 10)
    assert forecast.dtype == torch.float32
    assert DAILY.quantile_levels == tuple(round(0.1 * j, 1) for j in range(1, 10))


def test_season_comes_from_the_options_and_only_for_naive_seasonal() -> None:
    assert load(BackboneOptions("naive-seasonal", season=24)) == DAILY
    assert load(BackboneOptions("naive-last", season=24)) == LAST
    identities = {load(BackboneOptions("naive-seasonal", season=m)).identity for m in (1, 24, 96)}
    assert len(identities | {LAST.identity}) == 4


def test_embedding_and_foreign_rollouts_are_refused() -> None:
    with pytest.raises(TsbenchError, match="'naive-last' has no encoder"):
        LAST.embed(series())
    with pytest.raises(TsbenchError, match="no roll-out 'expand'; use direct"):
        load(BackboneOptions("naive-last", rollout="expand"))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("backbone", "kept", "mse", "mae"),
    [(LAST, 2785, 1.294371, 0.713181), (DAILY, 2785, 0.512225, 0.433303), (LAST, 2784, 1.295, 0.713)],
)
def test_etth1_figures_over_all_windows_and_the_published_repeat_row(
    mirror: Path, backbone: SeasonalNaive, kept: int, mse: float, mae: float
) -> None:
    values = pd.read_csv(mirror / "ETDataset/ETT-small/ETTh1.csv").iloc[:14400, 1:].to_numpy()
    values = (values - values[:8640].mean(axis=0)) / values[:8640].std(axis=0)
    windows = torch.tensor(values[11520 - 512 :].T, dtype=torch.float32).unfold(1, 512 + 96, 1)[:, :kept]
    context, target = windows.flatten(0, 1).split([512, 96], dim=-1)
    error = (backbone.predict(context, 96)[:, 4] - target).double()
    tolerance = 2e-6 if kept == 2785 else 5e-4  # the published row drops the last batch and rounds
    assert error.square().mean().item() == pytest.approx(mse, abs=tolerance)
    assert error.abs().mean().item() == pytest.approx(mae, abs=tolerance)

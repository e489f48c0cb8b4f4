from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from tsbench.backbones.base import path_sampler
from tsbench.backbones.flame import make_backbone
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.bench.evaluate import evaluate, evaluate_samples
from tsbench.data.splits import Borders, Scaler
from tsbench.data.windows import WindowGrid, gather_contexts, gather_targets, window_grid
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import FusedForecaster, fuse, predict_windows
from tsbench.metrics.fusion import ALPHAS
from tsbench.metrics.samples import score_samples
from tsbench.metrics.scaled import DefinedMean
from tsbench.metrics.streaming import ForecastScores, Scores
from tsbench.models.flame.model import Flame, FlameConfig

CHANNELS, LOOKBACK, HORIZON = 3, 16, 5
SCALED = np.random.default_rng(6).standard_normal((260, CHANNELS)).cumsum(axis=0).astype(np.float32) / 4
GRID = window_grid(Borders((0, 120), (120, 150), (150, 260)), "test", LOOKBACK, HORIZON)


@dataclass(frozen=True, eq=False)
class Fan:
    """A fan of quantiles around a multiple of the last value."""

    share: float
    identity: str = "fan"
    name: ClassVar[str] = "fan"
    quantile_levels: ClassVar[tuple[float, ...]] = (0.1, 0.5, 0.9)
    rollout: ClassVar[str] = "direct"
    block: ClassVar[None] = None
    prefix_consistent: ClassVar[bool] = True

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        step = torch.arange(1.0, horizon + 1).sqrt()
        width = (context.amax(dim=1) - context.amin(dim=1))[:, None, None] / 3
        return self.share * context[:, -1:, None] + width * torch.tensor([[-1.0], [0.1], [1.0]]) * step

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        return context[:, -1:]


BASE, COMPANION = Fan(1.0), Fan(0.6)
FUSED = FusedForecaster(BASE, COMPANION, 0.35)


def frozen(directory: Path | None = None) -> FrozenBackbone:
    return FrozenBackbone(BASE, SCALED, LOOKBACK, directory, 10**9)


def by_hand(alpha: float) -> torch.Tensor:
    """Fused forecasts [W, C, Q, H], one window at a time."""
    contexts = torch.from_numpy(gather_contexts(SCALED, GRID.starts, LOOKBACK))
    return torch.stack(
        [
            (1 - alpha) * BASE.predict(context, HORIZON) + alpha * COMPANION.predict(context, HORIZON)
            for context in contexts
        ]
    )


def assert_same(actual: Scores, expected: Scores, tolerance: float = 1e-12) -> None:
    for field in fields(Scores):
        ours, theirs = getattr(actual, field.name), getattr(expected, field.name)
        if field.name == "windows":
            for name, values in vars(theirs).items():
                np.testing.assert_array_equal(getattr(ours, name), values, err_msg=name)
        elif field.name == "steps":
            for name, values in vars(theirs).items():
                np.testing.assert_allclose(getattr(ours, name), values, rtol=tolerance, err_msg=name)
        elif isinstance(theirs, DefinedMean):
            assert ours == replace(theirs, mean=pytest.approx(theirs.mean, rel=tolerance, nan_ok=True))
        else:
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, err_msg=field.name)


@pytest.mark.parametrize("windows", [1, 7, 64])
@pytest.mark.parametrize("forecaster", [BASE, FUSED, COMPANION], ids=["base", "fused", "other"])
def test_scores_do_not_depend_on_how_many_windows_are_forecast_at_once(
    monkeypatch: pytest.MonkeyPatch, forecaster: Fan | FusedForecaster, windows: int
) -> None:
    expected = evaluate(forecaster, frozen(), GRID)
    sizes = dict.fromkeys(("cpu", "cuda"), windows * CHANNELS)
    monkeypatch.setattr("tsbench.backbones.forecast_cache._ROWS_PER_CHUNK", sizes)
    assert len(list(frozen().chunks(len(GRID.starts)))) == -(-len(GRID.starts) // windows)
    actual = evaluate(forecaster, frozen(), GRID)
    assert_same(actual.scores, expected.scores)
    if expected.curve is not None:
        for name in ("mse", "mae", "crps"):
            np.testing.assert_allclose(getattr(actual.curve, name), getattr(expected.curve, name), rtol=1e-12)


@pytest.mark.parametrize("windows", [1, 7, 64])
def test_sample_forecasts_are_those_of_evenly_spaced_windows_and_channels(
    monkeypatch: pytest.MonkeyPatch, windows: int
) -> None:
    sizes = dict.fromkeys(("cpu", "cuda"), windows * CHANNELS)
    monkeypatch.setattr("tsbench.backbones.forecast_cache._ROWS_PER_CHUNK", sizes)
    samples = evaluate(FUSED, frozen(), GRID).samples
    assert samples.windows.tolist() == [0, 35, 70, 105]
    assert samples.channels.tolist() == [0, 1, 2]
    assert samples.context == 2 * HORIZON
    np.testing.assert_allclose(samples.forecast, by_hand(0.35)[samples.windows], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "pairs", "places", "channels"),
    [(12 * 30, 12, [0, 35, 70, 105], [0, 1, 2]), (8 * 30, 8, [0, 35, 70, 105], [0, 2]), (1, 1, [0], [0])],
)
def test_samples_are_fewer_where_the_horizon_is_long(
    monkeypatch: pytest.MonkeyPatch, values: int, pairs: int, places: list[int], channels: list[int]
) -> None:
    monkeypatch.setattr("tsbench.bench.evaluate._SAMPLE_VALUES", values)
    samples = evaluate(BASE, frozen(), GRID).samples
    assert (samples.windows.tolist(), samples.channels.tolist()) == (places, channels)
    assert samples.forecast.shape == (len(places), len(channels), 3, HORIZON)
    assert len(places) * len(channels) <= pairs


def test_scores_are_the_plain_means_of_the_definitions() -> None:
    scores = evaluate(BASE, frozen(), GRID).scores
    forecast = by_hand(0).double().numpy()
    target = gather_targets(SCALED, GRID.starts, HORIZON).astype(np.float64)
    error = target - forecast[:, :, 1]
    assert scores.n_windows == len(GRID.starts) == GRID.total == 110 - HORIZON + 1
    assert scores.mse == pytest.approx((error**2).mean(), rel=1e-6)
    assert scores.mae == pytest.approx(np.abs(error).mean(), rel=1e-6)
    levels = np.array(BASE.quantile_levels)[:, None]
    over = target[:, :, None] - forecast
    pinball = 2 * np.maximum(levels * over, (levels - 1) * over).mean(axis=2)
    assert scores.crps == pytest.approx(pinball.sum() / np.abs(target).sum(), rel=1e-6)
    inside = (forecast[:, :, 0] <= target) & (target <= forecast[:, :, 2])
    assert scores.coverage == pytest.approx(inside.mean())


@pytest.mark.parametrize("alpha", [0.0, 0.35, 1.0])
def test_fused_scores_are_those_of_fusing_by_hand(alpha: float) -> None:
    expected = ForecastScores(BASE.quantile_levels, CHANNELS, HORIZON)
    expected.update(by_hand(alpha), torch.from_numpy(gather_targets(SCALED, GRID.starts, HORIZON)))
    evaluation = evaluate(replace(FUSED, alpha=alpha), frozen(), GRID)
    assert_same(evaluation.scores, expected.result())


def test_curve_at_every_weight_is_the_direct_evaluation_at_that_weight() -> None:
    curve = evaluate(FUSED, frozen(), GRID).curve
    assert curve is not None
    assert evaluate(BASE, frozen(), GRID).curve is None
    for place, alpha in enumerate(ALPHAS):
        scores = evaluate(replace(FUSED, alpha=alpha), frozen(), GRID).scores
        for name in ("mse", "mae", "crps"):
            assert getattr(curve, name)[place] == pytest.approx(getattr(scores, name), rel=1e-6)
    base = evaluate(BASE, frozen(), GRID).scores
    assert (curve.mae[0], curve.crps[0]) == (base.mae, base.crps)


def test_a_forecaster_that_is_not_the_backbone_is_scored_itself() -> None:
    alone = evaluate(COMPANION, frozen(), GRID).scores
    assert_same(alone, evaluate(replace(FUSED, alpha=1.0), frozen(), GRID).scores)
    assert alone.mse != pytest.approx(evaluate(BASE, frozen(), GRID).scores.mse, rel=0.01)


def test_scores_from_the_cache_are_those_computed_afresh(tmp_path: Path) -> None:
    for _ in range(2):
        for forecaster in (BASE, FUSED):
            cached = evaluate(forecaster, frozen(tmp_path), GRID).scores
            assert_same(cached, evaluate(forecaster, frozen(), GRID).scores, tolerance=0)


def test_window_errors_follow_the_order_of_the_grid() -> None:
    everything = evaluate(FUSED, frozen(), GRID).scores
    some = np.array([50, 3, 17, 105])
    grid = WindowGrid("test", LOOKBACK, HORIZON, 1, GRID.starts[some], GRID.total)
    scores = evaluate(FUSED, frozen(), grid).scores
    for name, values in vars(scores.windows).items():
        np.testing.assert_array_equal(values, getattr(everything.windows, name)[some])
    assert scores.mae == pytest.approx(everything.windows.mae[some].mean(), rel=1e-6)


def test_fusing_calls_the_companion_only_where_it_counts() -> None:
    class Refusing(Fan):
        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            raise AssertionError("called at weight 0")

    context = torch.from_numpy(gather_contexts(SCALED, GRID.starts[:4], LOOKBACK)).flatten(0, 1)
    base, companion = BASE.predict(context, HORIZON), COMPANION.predict(context, HORIZON)
    assert torch.equal(FusedForecaster(BASE, Refusing(0.0), 0.0).predict(context, HORIZON), base)
    assert torch.equal(replace(FUSED, alpha=1.0).predict(context, HORIZON), companion)
    assert torch.equal(fuse(base, torch.full_like(base, torch.nan), 0.0), base)
    assert torch.equal(fuse(torch.full_like(base, torch.nan), companion, 1.0), companion)
    assert torch.equal(
        predict_windows(FUSED, frozen(), GRID.starts[:4], HORIZON).flatten(0, 1),
        fuse(base, companion, 0.35),
    )


def test_scores_in_data_units_take_the_scaler() -> None:
    units = Scaler(mean=np.array([5.0, -80.0, 0.2]), std=np.array([0.1, 30.0, 2.0]))
    expected = ForecastScores(BASE.quantile_levels, CHANNELS, HORIZON, units)
    expected.update(by_hand(0), torch.from_numpy(gather_targets(SCALED, GRID.starts, HORIZON)))
    assert_same(evaluate(BASE, frozen(), GRID, units).scores, expected.result())
    assert evaluate(BASE, frozen(), GRID).scores.probts_nmae.n_defined == 0


@dataclass(frozen=True, eq=False)
class Drawer(Fan):
    """Draws paths around the last value whose noise is that of the seed, or none of it."""

    noise: float = 1.0

    def sample(self, context: torch.Tensor, horizon: int, n: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        offset = torch.linspace(-2, 3, n)[:, None]
        drawn = torch.randn(len(context), n, horizon, generator=generator)
        return self.share * context[:, -1:, None] + offset + self.noise * drawn


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_sample_scores_do_not_depend_on_how_many_rows_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    steady = Drawer(1.0, noise=0.0)
    context = torch.from_numpy(gather_contexts(SCALED, GRID.starts, LOOKBACK)).flatten(0, 1)
    target = torch.from_numpy(gather_targets(SCALED, GRID.starts, HORIZON)).flatten(0, 1)
    expected = score_samples([(steady.sample(context, HORIZON, 8, 0), target)])
    monkeypatch.setattr("tsbench.bench.evaluate._VALUES_AT_ONCE", rows * 8 * HORIZON)
    actual = evaluate_samples(steady, frozen(), GRID, 8, seed=3)
    np.testing.assert_allclose(list(vars(actual).values()), list(vars(expected).values()), rtol=1e-12)


def test_no_more_values_are_held_at_once_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Counting(Drawer):
        def sample(self, context: torch.Tensor, horizon: int, n: int, seed: int) -> torch.Tensor:
            asked.append((len(context), seed))
            return super().sample(context, horizon, n, seed)

    monkeypatch.setattr("tsbench.bench.evaluate._VALUES_AT_ONCE", 40 * LOOKBACK)
    for n in (2, 50):
        asked.clear()
        evaluate_samples(Counting(1.0), frozen(), GRID, n, seed=0)
        rows = [drawn for drawn, _ in asked]
        assert sum(rows) == len(GRID.starts) * CHANNELS
        assert max(rows) * max(LOOKBACK, n * HORIZON) <= 40 * LOOKBACK
        assert len({seed for _, seed in asked}) == len(asked)


def test_paths_repeat_with_the_seed_and_change_with_it() -> None:
    once = evaluate_samples(Drawer(1.0), frozen(), GRID, 8, seed=0)
    assert evaluate_samples(Drawer(1.0), frozen(), GRID, 8, seed=0) == once
    other = evaluate_samples(Drawer(1.0), frozen(), GRID, 8, seed=1)
    assert other != once
    assert other.crps_fair == pytest.approx(once.crps_fair, rel=0.1)


def test_the_paths_of_flame_score_like_its_quantiles() -> None:
    torch.manual_seed(0)
    shape = FlameConfig(
        width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=8, state=4, legendre_order=4
    )
    flame = make_backbone("flame-tiny", Flame(shape))
    over = FrozenBackbone(flame, SCALED, LOOKBACK, None, 0)
    quantiles, paths = evaluate(flame, over, GRID).scores, evaluate_samples(flame, over, GRID, 200, seed=0)
    assert paths.width == pytest.approx(quantiles.width, rel=0.02)
    assert paths.coverage == pytest.approx(quantiles.coverage, abs=0.02)
    assert paths.crps_fair == pytest.approx(quantiles.crps_unnormalised, rel=0.1)
    with pytest.raises(TsbenchError, match="flame-tiny draws paths of at most 256 steps, not 257"):
        path_sampler(flame, 257)


@pytest.mark.parametrize(
    ("forecaster", "message"),
    [(BASE, "fan forecasts quantiles and draws no paths"), (FUSED, "fan [+] fan forecasts quantiles")],
)
def test_a_forecaster_that_draws_no_paths_is_refused(forecaster: Any, message: str) -> None:
    with pytest.raises(TsbenchError, match=message):
        evaluate_samples(forecaster, frozen(), GRID, 8, seed=0)

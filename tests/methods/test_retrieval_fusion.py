"""RAFT and TS-RAG against loops over train windows in numpy, and what they may look at."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.backbones.naive import SeasonalNaive
from tsbench.config import PROFILES, CellSpec
from tsbench.data.dataset import Dataset
from tsbench.data.splits import SplitRule
from tsbench.data.windows import gather_contexts, gather_targets
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import FusedForecaster, predict_windows
from tsbench.methods.online_retrieval import RetrievalForecaster, granular_keys
from tsbench.methods.retrieval_fusion import NEIGHBOURS, RAFT_TEMPERATURES, fit_raft, fit_ts_rag
from tsbench.methods.task import Fitted, Task, make_task

ROWS, CHANNELS, LOOKBACK, HORIZON = 700, 2, 27, 6
VAL, TEST = 490, 560
DECILES = tuple(j / 10 for j in range(1, 10))
FITS = {"raft": fit_raft, "ts-rag": fit_ts_rag}
PROFILE = PROFILES["quick"].model_copy(
    update={"max_val_values": 200, "max_stop_values": 100, "max_knowledge_rows": 300}
)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Embedding(SeasonalNaive):
    """Repeats the last day, and embeds a context as the steps from value to value."""

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        return context.diff(dim=1)[:, -12:]


@dataclass(frozen=True)
class PointOnly(Embedding):
    quantile_levels = ()  # type: ignore[misc]


@dataclass(frozen=True)
class Cell:
    method: str
    task: Task
    frozen: FrozenBackbone

    def fit(self) -> Fitted:
        return FITS[self.method](self.task, self.frozen)

    def contexts(self, starts: NDArray[np.int64]) -> torch.Tensor:
        """Whole windows [w * C, L], channel by channel within each."""
        return torch.from_numpy(gather_contexts(self.task.scaled, starts, LOOKBACK)).flatten(0, 1)


def series() -> Array:
    rng = np.random.default_rng(12)
    seasons = np.sin(2 * np.pi * np.arange(ROWS)[:, None] / 24 + np.array([0, 1]))
    walk = rng.standard_normal((ROWS, CHANNELS)).cumsum(0)
    return 30 + 5 * seasons + rng.standard_normal((ROWS, CHANNELS)) + walk


VALUES = series()


def prepare(
    method: str = "raft", values: Array = VALUES, backbone: SeasonalNaive | None = None, **profile: Any
) -> Cell:
    times = np.datetime64("2020-01-01", "s") + np.arange(len(values)) * np.timedelta64(1, "h")
    split = SplitRule("rows", VAL, TEST - VAL, ROWS - TEST)
    dataset = Dataset("toy", values, times, ("a", "b"), "1h", 24, split, (HORIZON,), "0" * 64)
    spec = CellSpec(method=method, backbone="toy", dataset="toy", horizon=HORIZON, lookback=LOOKBACK)
    task = make_task(spec, PROFILE.model_copy(update=profile), dataset, Path("unused"), lambda line: None)
    frozen = FrozenBackbone(backbone or Embedding("toy", season=24), task.scaled, LOOKBACK, None, 0)
    return Cell(method, task, frozen)


def parts(fitted: Fitted) -> tuple[FusedForecaster, RetrievalForecaster]:
    assert isinstance(fitted.forecaster, FusedForecaster)
    assert isinstance(fitted.forecaster.companion, RetrievalForecaster)
    return fitted.forecaster, fitted.forecaster.companion


@cache
def fitted_cell(method: str) -> tuple[Cell, Fitted]:
    cell = prepare(method)
    return cell, cell.fit()


@pytest.fixture(params=list(FITS))
def fitted(request: pytest.FixtureRequest) -> tuple[Cell, Fitted]:
    return fitted_cell(request.param)


def replaced(first: int) -> Array:
    values = VALUES.copy()
    values[first:] = 1e3 * np.random.default_rng(9).standard_normal(values[first:].shape)
    return values


def similarity(a: Array, b: Array) -> float:
    """RAFT's, as TS-Memory's Appendix C.4 defines it, block by block."""
    cosines = []
    for size in (4, 2, 1):
        views = []
        for context in (a, b):
            ends = range(len(context), size - 1, -size)
            means = np.array([context[end - size : end].mean() for end in ends]) - context[-1]
            views.append(means - means.mean())
        lengths = np.linalg.norm(views[0]) * np.linalg.norm(views[1])
        cosines.append(views[0] @ views[1] / lengths if lengths > 0 else 0.0)
    return float(np.mean(cosines))


def weighted_quantiles(futures: Array, weights: Array) -> Array:
    """Smallest future whose cumulative weight reaches the level, [Q, H]."""
    found = np.empty((len(DECILES), futures.shape[1]))
    for row, step in np.ndindex(found.shape):
        total = 0.0
        for place in np.argsort(futures[:, step]):
            total += weights[place]
            found[row, step] = futures[place, step]
            if total >= DECILES[row]:
                break
    return found


def train_starts(companion: RetrievalForecaster) -> NDArray[np.int64]:
    return companion.memory.base.starts


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**31), lookback=st.integers(8, 60), scale=st.floats(0.01, 100))
def test_inner_product_of_keys_is_the_mean_of_three_cosines(seed: int, lookback: int, scale: float) -> None:
    a, b = np.random.default_rng(seed).standard_normal((2, lookback)).cumsum(axis=1)
    keys = granular_keys(torch.from_numpy(np.stack([a, b, 5 - a, scale * b - 3])))
    assert keys.shape == (4, lookback // 4 + lookback // 2 + lookback)
    assert keys.dtype == torch.float32
    products = (keys @ keys.T).numpy()
    np.testing.assert_allclose(np.diag(products), 1, atol=1e-5)
    assert products[0, 1] == pytest.approx(similarity(a, b), abs=1e-5)
    assert products[0, 2] == pytest.approx(-1, abs=1e-5)
    assert products[0, 3] == pytest.approx(products[0, 1], abs=1e-5)  # neither scale nor offset counts


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_context_resembles_nothing(value: float) -> None:
    contexts = torch.stack([torch.full((20,), value), torch.arange(20.0)])
    keys = granular_keys(contexts)
    assert torch.equal(keys[0], torch.zeros_like(keys[0]))
    assert torch.isfinite(keys).all()


@pytest.mark.parametrize(("k", "temperature"), [(5, 0.05), (20, 0.2), (50, 0.5)])
def test_raft_equals_its_definition_taken_one_window_at_a_time(k: int, temperature: float) -> None:
    cell, result = fitted_cell("raft")
    companion = replace(parts(result)[1], k=k, temperature=temperature)
    queries = np.array([VAL, TEST, 651])
    context = cell.contexts(queries)
    retrieved = companion.retrieve(context)
    forecast = companion.predict(context, HORIZON).view(len(queries), CHANNELS, 9, HORIZON)
    for (row, start), channel in ((pair, c) for pair in enumerate(queries) for c in range(CHANNELS)):
        column = cell.task.scaled[:, channel].astype(np.float64)
        query = column[start - LOOKBACK : start]
        ranked = sorted(
            (-similarity(query, column[known - LOOKBACK : known]), int(known))
            for known in train_starts(companion)
        )[:k]
        neighbours = retrieved.neighbours[channel]
        assert neighbours.starts[row].tolist() == [known for _, known in ranked]
        weights = np.exp([-distance / temperature for distance, _ in ranked])
        weights /= weights.sum()
        np.testing.assert_allclose(retrieved.weights[channel][row], weights, rtol=1e-4)
        futures = np.stack([column[known : known + HORIZON] - column[known - 1] for _, known in ranked])
        expected = weighted_quantiles(futures + query[-1], weights)
        np.testing.assert_allclose(forecast[row, channel].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("k", [5, 50])
def test_ts_rag_equals_its_definition_taken_one_window_at_a_time(k: int) -> None:
    cell, result = fitted_cell("ts-rag")
    companion = replace(parts(result)[1], k=k)
    assert companion.temperature == 0.1
    known = train_starts(companion)
    queries = np.array([VAL, TEST, 651])
    context = cell.contexts(queries)
    retrieved = companion.retrieve(context)
    forecast = companion.predict(context, HORIZON).view(len(queries), CHANNELS, 9, HORIZON)
    for channel in range(CHANNELS):
        column = cell.task.scaled[:, channel].astype(np.float64)
        embedded = {int(end): np.diff(column[end - LOOKBACK : end])[-12:] for end in [*known, *queries]}
        nearest = []
        for place in np.linspace(0, len(known) - 1, 256).astype(int):
            start = known[place]
            others = [other for other in known if abs(other - start) >= HORIZON]
            gaps = sorted(np.linalg.norm(embedded[int(other)] - embedded[int(start)]) for other in others)
            nearest += gaps[:50]
        unit = np.median(nearest)
        for row, start in enumerate(queries):
            ranked = sorted(
                (np.linalg.norm(embedded[int(start)] - embedded[int(other)]), int(other)) for other in known
            )[:k]
            assert retrieved.neighbours[channel].starts[row].tolist() == [other for _, other in ranked]
            weights = np.exp([-distance / (0.1 * unit) for distance, _ in ranked])
            weights /= weights.sum()
            np.testing.assert_allclose(retrieved.weights[channel][row], weights, rtol=1e-3, atol=1e-6)
            level = column[start - 16 : start].mean()
            futures = np.stack(
                [column[r : r + HORIZON] + level - column[r - 16 : r].mean() for _, r in ranked]
            )
            expected = weighted_quantiles(futures, weights)
            np.testing.assert_allclose(forecast[row, channel].numpy(), expected, atol=1e-5)


def test_neighbours_temperature_and_weight_have_the_lowest_crps_of_all_on_validation(
    fitted: tuple[Cell, Fitted],
) -> None:
    cell, result = fitted
    forecaster, companion = parts(result)
    grid = cell.task.windows("val", PROFILE.max_val_values)
    assert 10 < len(grid.starts) < grid.total
    target = gather_targets(cell.task.scaled, grid.starts, HORIZON).astype(np.float64)
    base = predict_windows(cell.frozen.backbone, cell.frozen, grid.starts, HORIZON).numpy()
    levels = np.array(DECILES)[:, None]
    temperatures = RAFT_TEMPERATURES if cell.method == "raft" else (0.1,)
    scores = {}
    for k in NEIGHBOURS:
        for temperature in temperatures:
            candidate = replace(companion, k=k, temperature=temperature)
            retrieved = predict_windows(candidate, cell.frozen, grid.starts, HORIZON).numpy()
            for beta in np.arange(21) / 20:
                error = target[:, :, None] - ((1 - beta) * base + beta * retrieved)
                pinball = np.maximum(levels * error, (levels - 1) * error)
                scores[k, temperature, beta] = 2 * pinball.mean() / np.abs(target).mean()
    best = min(scores, key=scores.__getitem__)
    assert (companion.k, companion.temperature, forecaster.alpha) == pytest.approx(best)
    assert 0 < forecaster.alpha <= 1
    assert result.validation_curve is not None
    assert result.validation_curve.crps.min() == pytest.approx(scores[best], rel=1e-5)
    assert result.diagnostics["k"] == companion.k
    assert result.diagnostics["temperature"] == companion.temperature
    assert result.diagnostics["val_windows"] == len(grid.starts)


def test_figures_of_the_retrieved_are_those_of_its_medians_beside_the_backbones(
    fitted: tuple[Cell, Fitted],
) -> None:
    cell, result = fitted
    _, companion = parts(result)
    starts = cell.task.windows("val", PROFILE.max_stop_values).starts
    target = gather_targets(cell.task.scaled, starts, HORIZON)
    errors = [
        np.abs(predict_windows(forecaster, cell.frozen, starts, HORIZON)[:, :, 4].numpy() - target)
        for forecaster in (companion, cell.frozen.backbone)
    ]
    assert result.diagnostics["teacher_mae_val"] == pytest.approx(errors[0].mean(), rel=1e-5)
    assert result.diagnostics["base_mae_val"] == pytest.approx(errors[1].mean(), rel=1e-5)
    won = errors[0].mean(axis=-1) < errors[1].mean(axis=-1)
    assert result.diagnostics["gate_open_val"] == pytest.approx(won.mean())
    assert 0 < result.diagnostics["confidence_mean_val"] <= 1


def test_every_stored_window_lies_in_the_train_rows_and_before_every_target(
    fitted: tuple[Cell, Fitted],
) -> None:
    cell, result = fitted
    _, companion = parts(result)
    borders = cell.task.borders
    assert (borders.val, borders.test) == ((VAL, TEST), (TEST, ROWS))
    known = train_starts(companion)
    assert known.min() >= LOOKBACK
    assert known.max() + HORIZON <= VAL
    assert len(known) * CHANNELS <= PROFILE.max_knowledge_rows
    for starts in (cell.task.windows("val", 10**9).starts, cell.task.test_windows().starts):
        for found in companion.retrieve(cell.contexts(starts)).neighbours:
            assert (found.starts + HORIZON <= starts[:, None]).all()
            assert np.isin(found.starts, known).all()
    with pytest.raises(ValueError, match="reaches into the queries' targets"):
        companion.memory.base.require_past(np.array([TEST, known.max() + HORIZON - 1]))
    companion.memory.base.require_past(np.array([TEST, known.max() + HORIZON]))


def test_when_the_test_rows_are_replaced_then_all_that_was_chosen_and_found_is_bit_identical(
    fitted: tuple[Cell, Fitted],
) -> None:
    cell, result = fitted
    other = prepare(cell.method, replaced(TEST))
    assert not np.array_equal(other.task.scaled, cell.task.scaled)
    refitted = other.fit()
    forecaster, companion = parts(result)
    again, companion_again = parts(refitted)
    assert refitted.diagnostics == result.diagnostics
    assert again.alpha == forecaster.alpha
    for name, curve in vars(result.validation_curve).items():
        np.testing.assert_array_equal(getattr(refitted.validation_curve, name), curve)
    starts = cell.task.windows("val", 10**9).starts
    found, found_again = (
        one.retrieve(setting.contexts(starts))
        for one, setting in ((companion, cell), (companion_again, other))
    )
    base, base_again = companion.memory.base, companion_again.memory.base
    for channel, (ours, theirs) in enumerate(zip(found.neighbours, found_again.neighbours, strict=True)):
        np.testing.assert_array_equal(theirs.starts, ours.starts)
        np.testing.assert_array_equal(
            base_again.futures(theirs.starts, channel), base.futures(ours.starts, channel)
        )


def test_when_rows_from_a_windows_first_target_on_are_replaced_then_its_forecast_is_unchanged(
    fitted: tuple[Cell, Fitted],
) -> None:
    cell, result = fitted
    start = 600
    other = prepare(cell.method, replaced(start))
    before, after = np.array([start]), np.array([start + 1])

    def forecast(frozen: FrozenBackbone, starts: NDArray[np.int64]) -> torch.Tensor:
        return predict_windows(result.forecaster, frozen, starts, HORIZON)

    assert torch.equal(forecast(other.frozen, before), forecast(cell.frozen, before))
    assert not torch.equal(forecast(other.frozen, after), forecast(cell.frozen, after))


def test_where_the_backbone_makes_no_error_its_forecast_is_left_as_it_is_bit_for_bit() -> None:
    periodic = np.tile(np.random.default_rng(3).standard_normal((24, CHANNELS)), (30, 1))[:ROWS]
    misleading = VAL - LOOKBACK
    periodic[:misleading] += np.random.default_rng(4).standard_normal((misleading, CHANNELS))
    cell = prepare("raft", periodic)
    result = cell.fit()
    forecaster, _ = parts(result)
    assert forecaster.alpha == 0
    starts = cell.task.test_windows().starts
    expected = predict_windows(cell.frozen.backbone, cell.frozen, starts, HORIZON)
    assert torch.equal(predict_windows(forecaster, cell.frozen, starts, HORIZON), expected)


def test_forecasts_do_not_depend_on_the_other_windows_and_shorter_ones_are_prefixes(
    fitted: tuple[Cell, Fitted],
) -> None:
    cell, result = fitted
    _, companion = parts(result)
    starts = np.tile(cell.task.test_windows().starts, 4)  # more than one chunk
    together = predict_windows(companion, cell.frozen, starts, HORIZON)
    assert (together.diff(dim=2) >= 0).all()
    for place in (0, 130, len(starts) - 1):
        alone = predict_windows(companion, cell.frozen, starts[[place]], HORIZON)
        torch.testing.assert_close(alone[0], together[place])
        shorter = predict_windows(companion, cell.frozen, starts[[place]], 2)
        assert torch.equal(shorter, alone[..., :2])


def test_contexts_of_half_a_window_and_horizons_beyond_the_stored_futures_are_refused(
    fitted: tuple[Cell, Fitted],
) -> None:
    _, companion = parts(fitted[1])
    with pytest.raises(ValueError, match="3 contexts are no whole windows of 2 channels"):
        companion.predict(torch.zeros(3, LOOKBACK), HORIZON)
    with pytest.raises(ValueError, match="futures of 6 steps, not 7"):
        companion.predict(torch.zeros(2, LOOKBACK), HORIZON + 1)


def test_equally_similar_windows_are_taken_in_order_of_time() -> None:
    values = np.tile(np.random.default_rng(0).permutation(24).astype(float), 30)[:ROWS]
    cell = prepare("raft", np.stack([values, -values], axis=1))
    _, companion = parts(cell.fit())
    query = LOOKBACK + 20 * 24
    [found, _] = replace(companion, k=5).retrieve(cell.contexts(np.array([query]))).neighbours
    same = [start for start in train_starts(companion) if (query - start) % 24 == 0]
    assert len(same) > 10
    assert found.starts[0].tolist() == same[:5]


def test_neighbours_are_at_most_the_windows_there_are() -> None:
    cell = prepare("raft", max_knowledge_rows=14)
    result = cell.fit()
    assert result.diagnostics["known_windows"] == 7
    assert result.diagnostics["k"] in (5, 7)


def test_a_constant_channel_is_forecast_as_the_constant() -> None:
    values = VALUES.copy()
    values[:, 1] = 3.0
    cell = prepare("raft", values)
    forecast = predict_windows(parts(cell.fit())[1], cell.frozen, cell.task.test_windows().starts, HORIZON)
    np.testing.assert_array_equal(forecast[:, 1], 0)  # the standardised constant
    assert torch.isfinite(forecast).all()


@pytest.mark.parametrize("method", list(FITS))
def test_point_forecasts_are_refused(method: str) -> None:
    with pytest.raises(TsbenchError, match=f"{method} needs a backbone with a median forecast, and 'toy'"):
        prepare(method, backbone=PointOnly("toy", season=24)).fit()


def test_ts_rag_needs_an_encoder_and_raft_needs_none() -> None:
    naive = SeasonalNaive("naive-seasonal", season=24)
    assert prepare("raft", backbone=naive).fit().diagnostics["k"] > 0
    with pytest.raises(TsbenchError, match="'naive-seasonal' has no encoder"):
        prepare("ts-rag", backbone=naive).fit()

"""How RAFT and TS-RAG are fused: what is chosen on validation, and what they may look at."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from retrieval_cells import (
    CHANNELS,
    DECILES,
    FITS,
    HORIZON,
    LOOKBACK,
    PROFILE,
    ROWS,
    TEST,
    VAL,
    Cell,
    PointOnly,
    fitted_cell,
    parts,
    prepare,
    replaced,
    train_starts,
)

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.backbones.naive import SeasonalNaive
from tsbench.data.windows import gather_targets
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import predict_windows
from tsbench.methods.retrieval_fusion import NEIGHBOURS, RAFT_TEMPERATURES
from tsbench.methods.task import Fitted


@pytest.fixture(params=list(FITS))
def fitted(request: pytest.FixtureRequest) -> tuple[Cell, Fitted]:
    return fitted_cell(request.param)


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


@pytest.mark.parametrize("method", list(FITS))
def test_point_forecasts_are_refused(method: str) -> None:
    with pytest.raises(TsbenchError, match=f"{method} needs a backbone with a median forecast, and 'toy'"):
        prepare(method, backbone=PointOnly("toy", season=24)).fit()


def test_ts_rag_needs_an_encoder_and_raft_needs_none() -> None:
    naive = SeasonalNaive("naive-seasonal", season=24)
    assert prepare("raft", backbone=naive).fit().diagnostics["k"] > 0
    with pytest.raises(TsbenchError, match="'naive-seasonal' has no encoder"):
        prepare("ts-rag", backbone=naive).fit()

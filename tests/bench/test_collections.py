from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import short_series
import torch
import toy

import tsbench
from tsbench.bench.checks import check
from tsbench.bench.collections import forecast_series, series_metrics
from tsbench.bench.grid import cells
from tsbench.bench.records import Failure, Record
from tsbench.bench.runner import Bench, run_cell, run_cells, with_baselines
from tsbench.bench.store import ResultsStore
from tsbench.config import PROFILES, WHOLE_SERIES, CellSpec
from tsbench.data.dataset import SeriesCollection
from tsbench.errors import TsbenchError
from tsbench.metrics.scaled import owa

SERIES = {
    "M3-Other": short_series.seasonal(7, 30, 1),
    "M4-Hourly": short_series.seasonal(5, 160, 24),
    "M4-Weekly": [np.full(40, 3.0), *short_series.seasonal(3, 60, 1)],
}


@pytest.fixture(autouse=True)
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TSBENCH_MIRROR", raising=False)
    short_series.install(monkeypatch, tmp_path / "home", SERIES)
    toy.install(monkeypatch)
    return Bench(ResultsStore(tmp_path / "results"))


def cell(dataset: str = "M4-Hourly", backbone: str = "naive-seasonal", **fields: object) -> CellSpec:
    wanted = {"method": "origin", "backbone": backbone, "dataset": dataset, "lookback": WHOLE_SERIES}
    horizon = {"M3-Other": 8, "M4-Hourly": 48, "M4-Weekly": 13}[dataset]
    return CellSpec.model_validate(wanted | {"horizon": horizon} | fields)


@dataclass
class Counting:
    """Forecasts the number of values it is given; keeps the shapes of its batches."""

    quantile_levels: ClassVar[tuple[float, ...]] = (0.1, 0.5)
    name: ClassVar[str] = "counting"

    def __post_init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        self.batches.append(tuple(context.shape))
        assert not context.isnan().any()
        point = torch.full((len(context), horizon), float(context.shape[1])) + context[:, -1:]
        return torch.stack([point - 1, point], dim=1)


def test_every_series_is_forecast_once_from_its_own_last_values() -> None:
    train = [np.arange(n, dtype=float) for n in (5, 9, 5, 7, 300, 301)]
    forecaster = Counting()
    forecast = forecast_series(forecaster, train, 3, lookback=8)  # type: ignore[arg-type]
    seen = [min(len(series), 8) for series in train]
    np.testing.assert_array_equal(
        forecast, [[n + series[-1]] * 3 for n, series in zip(seen, train, strict=True)]
    )
    assert sorted(forecaster.batches) == [(1, 7), (2, 5), (3, 8)]


def test_a_large_group_goes_in_parts() -> None:
    train = [np.array([float(place), 1.0]) for place in range(600)]
    forecaster = Counting()
    forecast_series(forecaster, train, 1, WHOLE_SERIES)  # type: ignore[arg-type]
    assert [batch[0] for batch in forecaster.batches] == [256, 256, 88]


def slow_scores(collection: SeriesCollection, forecast: np.ndarray) -> tuple[float, float, int]:
    """Means of SMAPE and MASE as the competition defines them, loop by loop."""
    smapes, mases, undefined = [], [], 0
    for train, test, point in zip(collection.train, collection.test, forecast, strict=True):
        smapes.append(
            np.mean([200 * abs(y - p) / (abs(y) + abs(p)) for y, p in zip(test, point, strict=True)])
        )
        steps = range(collection.season, len(train))
        scale = np.mean([abs(train[t] - train[t - collection.season]) for t in steps])
        if scale == 0:
            undefined += 1
        else:
            mases.append(np.mean(np.abs(test - point)) / scale)
    return float(np.mean(smapes)), float(np.mean(mases)), undefined


@pytest.mark.parametrize("name", SERIES)
def test_scores_are_those_of_the_competition(bench: Bench, name: str) -> None:
    collection = bench.collection(name)
    repeated = np.stack(
        [np.resize(train[-collection.season :], collection.horizon) for train in collection.train]
    )
    record = run_cell(bench, cell(name))
    smape, mase, undefined = slow_scores(collection, repeated)
    assert record.metrics["smape"] == pytest.approx(smape, rel=1e-5)
    assert record.metrics["mase"] == pytest.approx(mase, rel=1e-5)
    assert record.metrics["series_without_mase"] == undefined == (name == "M4-Weekly")
    naive2 = run_cell(bench, cell(name, "naive2")).metrics
    assert naive2["owa"] == 1
    assert (naive2["smape"], naive2["mase"]) == (
        record.metrics["smape_naive2"],
        record.metrics["mase_naive2"],
    )
    expected = owa(record.metrics["smape"], record.metrics["mase"], naive2["smape"], naive2["mase"])
    assert record.metrics["owa"] == pytest.approx(expected, rel=1e-12)
    assert "mse" not in record.metrics


def test_owa_is_undefined_where_naive2_makes_no_error(bench: Bench) -> None:
    constant = SeriesCollection(
        name="x",
        train=(np.full(9, 2.0),),
        test=np.full((1, 3), 2.0),
        ids=("a",),
        freq="other",
        season=1,
        horizon=3,
        sha256="",
    )
    metrics = series_metrics(constant, np.array([0]), np.full((1, 3), 2.5))
    assert np.isnan(metrics["owa"])
    assert np.isnan(metrics["mase"])
    assert metrics["smape"] == pytest.approx(200 * 0.5 / 4.5)


def test_test_values_reach_no_forecast(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forecasts = []

    def recorded(forecaster: object, *rest: object) -> np.ndarray:
        forecasts.append(forecast_series(forecaster, *rest))  # type: ignore[arg-type]
        return forecasts[-1]

    monkeypatch.setattr("tsbench.bench.collections.forecast_series", recorded)
    run_cell(bench, cell("M3-Other", "naive2"))
    spoilt = [np.concatenate([series[:-8], np.full(8, 1e9)]) for series in SERIES["M3-Other"]]
    short_series.install(monkeypatch, tmp_path / "home", {"M3-Other": spoilt})
    run_cell(Bench(bench.store), cell("M3-Other", "naive2"))
    np.testing.assert_array_equal(forecasts[0], forecasts[2])


def test_windows_of_the_record_are_series(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = run_cell(bench, cell("M3-Other"))
    assert (record.windows, record.windows_total, record.test_stride) == (7, 7, 1)
    assert record.levels == ()
    thinned = run_cell(bench, cell("M3-Other", test_stride=3))
    assert (thinned.windows, thinned.test_stride) == (3, 3)
    small = PROFILES["quick"].model_copy(update={"max_test_values": 30})
    monkeypatch.setitem(PROFILES, "quick", small)
    quick = run_cell(bench, cell("M3-Other", profile="quick"))
    assert (quick.windows, quick.test_stride) == (4, 2)
    assert bench.store.load(record.key).metrics == record.metrics  # type: ignore[union-attr]


def test_a_shorter_lookback_cuts_contexts_but_not_the_references(bench: Bench) -> None:
    whole, cut = (run_cell(bench, cell(backbone="naive2", lookback=n)) for n in (WHOLE_SERIES, 50))
    assert cut.metrics["smape"] != whole.metrics["smape"]  # 50 values are too few to see the season
    assert cut.metrics["smape_naive2"] == whole.metrics["smape"]
    assert cut.metrics["series_without_mase"] == 0


def test_a_forecast_that_is_not_finite_fails_the_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = toy.Toy.predict

    def sometimes(self: toy.Toy, context: torch.Tensor, horizon: int) -> torch.Tensor:
        forecast = predict(self, context, horizon)
        return forecast if context.shape[1] % 2 else forecast * torch.nan

    monkeypatch.setattr(toy.Toy, "predict", sometimes)
    (failed,) = run_cells(bench, [cell(backbone="toy")])
    assert isinstance(failed, Failure)
    assert failed.error == (
        "toy forecasts no finite value for 3 of 5 series, such as H1; use another backbone"
    )


def test_naive_rows_and_naive2_stand_before_the_backbone_and_see_whole_series(bench: Bench) -> None:
    rows = with_baselines([cell(backbone="toy", lookback=48)])
    assert [(row.backbone, row.lookback) for row in rows] == [
        ("naive-last", WHOLE_SERIES),
        ("naive-seasonal", WHOLE_SERIES),
        ("naive2", WHOLE_SERIES),
        ("toy", 48),
    ]
    assert all(isinstance(outcome, Record) for outcome in run_cells(bench, rows))


def test_horizon_and_lookback_of_a_collection_are_its_own() -> None:
    asked = cells(method="origin", backbone="toy", datasets=["M3", "demo"], seeds=[0], variants=(None,))
    assert [(spec.dataset, spec.horizon, spec.lookback) for spec in asked] == [
        ("M3-Yearly", 6, WHOLE_SERIES),
        ("M3-Quarterly", 8, WHOLE_SERIES),
        ("M3-Monthly", 18, WHOLE_SERIES),
        ("M3-Other", 8, WHOLE_SERIES),
        ("demo", 96, 512),
    ]
    with pytest.raises(TsbenchError) as caught:
        cells(
            method="origin",
            backbone="toy",
            datasets=["M4-Hourly", "M3-Other"],
            horizons=[48],
            seeds=[0],
            variants=(None,),
        )
    assert str(caught.value) == "M3-Other is scored on 8 steps, not 48; leave out --horizon"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (cell(backbone="toy", method="ts-memory"), "method 'ts-memory' learns from the windows of a long"),
        (cell(samples=10), "--samples is for long data sets, not for M4-Hourly; leave it out"),
        (cell(drop_last=32), "--drop-last is for long data sets"),
        (cell(device="tpu"), "unknown device 'tpu'"),
        (
            cell(backbone="naive2").model_copy(update={"dataset": "demo"}),
            "backbone 'naive2' is fitted to single series; use it on M3 or M4",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_work(bench: Bench, spec: CellSpec, message: str) -> None:
    with pytest.raises(TsbenchError, match=message):
        check(bench, [spec])


def test_python_runs_a_collection_too(tmp_path: Path) -> None:
    table = tsbench.run("origin", "toy", "M4-Hourly", results=tmp_path / "results")
    assert list(table["backbone"]) == ["naive-last", "naive-seasonal", "naive2", "toy"]
    assert set(table["horizon"]) == {48}
    assert table["owa"].notna().all()

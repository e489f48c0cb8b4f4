import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tsbench
from tsbench.backbones.architectures import Shape
from tsbench.backbones.base import BackboneOptions
from tsbench.bench.grid import cells
from tsbench.bench.runner import Bench
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec
from tsbench.methods.supervised import SupervisedForecaster, fit
from tsbench.registry import load
from tsbench.report.labels import method_label

LOOKBACK, RATES = 96, 3


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(ResultsStore(tmp_path / "results"))


def cell(**fields: object) -> CellSpec:
    shape = {"dataset": "demo", "horizon": 24, "lookback": LOOKBACK, "profile": "quick"}
    return CellSpec.model_validate({"method": "supervised", "backbone": "dlinear", **shape, **fields})


def fitted(bench: Bench, spec: CellSpec) -> SupervisedForecaster:
    task = bench.task(spec)
    forecaster = fit(task, bench.frozen(spec, task)).forecaster
    assert isinstance(forecaster, SupervisedForecaster)
    return forecaster


def weights(forecaster: SupervisedForecaster) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in forecaster.network.state_dict().values()])


def test_it_beats_the_naive_rows_that_stand_beside_it(tmp_path: Path) -> None:
    table = tsbench.run(
        "supervised",
        dataset="demo",
        horizon=24,
        lookback=LOOKBACK,
        profile="quick",
        test_stride=20,
        results=tmp_path / "results",
    )
    assert sorted(table["backbone"]) == ["dlinear", "naive-last", "naive-seasonal"]
    table = table.set_index("backbone")
    assert table["mse"]["dlinear"] < table["mse"]["naive-last"]
    assert np.isnan(table["crps"]["dlinear"])  # point forecasts
    assert table["val_mse"]["dlinear"] > 0
    assert 1 <= table["epochs"]["dlinear"] <= 2  # the profile's bound


def test_the_score_is_that_of_the_forecasts_themselves(bench: Bench) -> None:
    """The harness around the network, by hand: every test window, every channel, plain means."""
    spec = cell(test_stride=40)
    task, forecaster = bench.task(spec), fitted(bench, spec)
    errors = []
    for start in task.test_windows().starts:
        context = torch.from_numpy(task.scaled[start - LOOKBACK : start].T.copy())
        forecast = forecaster.network(context.unsqueeze(0)).detach().numpy()[0]
        errors.append((forecast - task.scaled[start : start + 24].T) ** 2)
    from tsbench.bench.runner import run_cell

    assert run_cell(bench, spec).metrics["mse"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_training_repeats_with_the_seed_and_is_kept(bench: Bench) -> None:
    first = weights(fitted(bench, cell()))
    folder = bench.task(cell()).artifacts / "supervised"
    assert len(list(folder.iterdir())) == RATES
    assert torch.equal(weights(fitted(bench, cell(test_stride=7))), first)  # found trained
    assert len(list(folder.iterdir())) == RATES
    assert not torch.equal(weights(fitted(bench, cell(seed=1))), first)
    assert len(list(folder.iterdir())) == 2 * RATES


def test_fewer_train_windows_are_another_training(bench: Bench) -> None:
    task = bench.task(cell(train_stride=3))
    result = fit(task, bench.frozen(task.spec, task))
    every = bench.task(cell())
    total = fit(every, bench.frozen(every.spec, every)).diagnostics["train_windows"]
    assert result.diagnostics["train_windows"] == -(-total // 3)


def test_no_test_row_reaches_the_weights(tmp_path: Path) -> None:
    def learned(name: str, test_rows: float) -> torch.Tensor:
        index = pd.date_range("2020", periods=900, freq="h")
        values = np.random.default_rng(0).normal(size=(900, 2)).cumsum(0)
        values[720:] = test_rows
        folder = tmp_path / name
        folder.mkdir()
        pd.DataFrame(values, index=index, columns=["a", "b"]).rename_axis("date").to_csv(folder / "own.csv")
        from tsbench.data.splits import parse_split
        from tsbench.data.user_csv import read_user_csv

        dataset = read_user_csv(folder / "own.csv", "1h", parse_split("0.7,0.1,0.2"))
        bench = Bench(ResultsStore(folder / "results"), own_data={dataset.name: dataset})
        return weights(fitted(bench, cell(dataset=dataset.name)))

    assert torch.equal(learned("low", 0.0), learned("high", 1e3))


def test_lookback_is_the_architectures_own_unless_given() -> None:
    def only(**given: object) -> CellSpec:
        [spec] = cells(
            method="supervised", backbone=None, datasets=["ETTh1"], seeds=[0], variants=(None,), **given
        )  # type: ignore[arg-type]
        return spec

    assert (only().backbone, only().lookback, only(lookback=96).lookback) == ("dlinear", 336, 96)
    assert (only().precision, only(precision="bf16").precision) == ("fp32", "bf16")


def test_in_bf16_training_and_forecasts_are_near_those_of_fp32_and_the_row_says_so(bench: Bench) -> None:
    specs = [cell(precision=precision) for precision in ("fp32", "bf16")]
    exact, rounded = (fitted(bench, spec) for spec in specs)
    assert not torch.equal(weights(exact), weights(rounded))
    context = torch.from_numpy(bench.task(specs[0]).scaled[:LOOKBACK].T.copy())
    forecast = rounded.predict(context, 24)
    assert forecast.dtype == torch.float32
    assert not torch.equal(forecast, replace(rounded, precision="fp32").predict(context, 24))
    torch.testing.assert_close(forecast, exact.predict(context, 24), rtol=0, atol=0.1)
    assert [method_label(spec) for spec in specs] == ["DLinear", "DLinear, bf16"]


def test_the_validation_split_chooses_the_learning_rate(bench: Bench) -> None:
    task = bench.task(cell())
    diagnostics = fit(task, bench.frozen(task.spec, task)).diagnostics
    reports = [json.loads(path.read_text()) for path in task.artifacts.glob("supervised/*/training.json")]
    scores = {report["config"]["learning_rate"]: report["report"]["best_score"] for report in reports}
    assert len(scores) == RATES
    assert diagnostics["val_mse"] == min(scores.values())
    assert scores[diagnostics["learning_rate"]] == diagnostics["val_mse"]
    assert all(report["config"]["average_decay"] > 0 for report in reports)
    assert all(report["config"]["schedule"] == "late-halving" for report in reports)


@pytest.mark.parametrize("name", ["dlinear", "nlinear"])
def test_linear_networks_take_rate_and_batch_from_the_script_of_the_data_set(name: str) -> None:
    architecture = load("backbone", name)(BackboneOptions(name))
    known, unknown = (architecture.recipe(Shape(336, 96, 7, dataset)) for dataset in ("Weather", "own"))
    assert (known.learning_rates, known.batch_windows) == ((1e-4,), 16)
    assert (len(unknown.learning_rates), unknown.batch_windows) == (RATES, 32)

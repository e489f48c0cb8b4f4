from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import short_series
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tsbench
from tsbench.bench.checks import check
from tsbench.bench.collections import fit_collection
from tsbench.bench.grid import cells
from tsbench.bench.runner import Bench, with_baselines
from tsbench.bench.store import ResultsStore
from tsbench.config import PROFILES, TRANSFERS, CellSpec, FLlmOptions
from tsbench.data.catalog import CollectionEntry, catalogue
from tsbench.data.dataset import SeriesCollection
from tsbench.errors import TsbenchError
from tsbench.methods import f_llm_transfer
from tsbench.methods.f_llm import FLlmForecaster
from tsbench.methods.f_llm_transfer import (
    cut_windows,
    smape_loss,
    teacher_forced_smape,
    training_parts,
)
from tsbench.methods.task import SeriesTask
from tsbench.metrics.scaled import smape
from tsbench.models.f_llm.lipschitz import LipschitzConfig
from tsbench.models.f_llm.plant import Plant, PlantConfig, TokenMLP
from tsbench.stages import Stages

SOURCE = short_series.seasonal(40, 28, 4, seed=1)
TARGETS = {"M3-Quarterly": short_series.seasonal(6, 26, 4), "M3-Other": short_series.seasonal(5, 12, 1)}
VALUES = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


@pytest.fixture(autouse=True)
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TSBENCH_MIRROR", raising=False)
    short_series.install(monkeypatch, tmp_path / "home", {"M4-Quarterly": SOURCE, **TARGETS})
    small = {"max_steps": 60, "eval_every": 20, "batch_size": 8}
    monkeypatch.setitem(PROFILES, "quick", PROFILES["quick"].model_copy(update=small))
    return Bench(ResultsStore(tmp_path / "results"))


@pytest.fixture
def spec(llama: str) -> CellSpec:
    (asked,) = cells(
        method="f-llm",
        backbone="smollm2",
        datasets=["M3-Quarterly"],
        seeds=[0],
        variants=(FLlmOptions(),),
        checkpoint=llama,
        profile="quick",
    )
    return asked


def with_options(spec: CellSpec, **options: object) -> CellSpec:
    assert spec.f_llm is not None
    return spec.model_copy(update={"f_llm": spec.f_llm.model_copy(update=options)})


def fitted(bench: Bench, spec: CellSpec) -> FLlmForecaster:
    forecaster = fit_collection(bench, spec, Stages()).forecaster
    assert isinstance(forecaster, FLlmForecaster)
    return forecaster


@settings(deadline=None, max_examples=25, derandomize=True)
@given(arrays(np.float32, (3, 4), elements=VALUES), arrays(np.float32, (3, 4), elements=VALUES))
def test_the_loss_is_smape_with_a_constant_denominator(forecast: np.ndarray, target: np.ndarray) -> None:
    predicted = torch.from_numpy(forecast).requires_grad_()
    loss = smape_loss(predicted, torch.from_numpy(target))
    assert loss.item() == pytest.approx(smape(target, forecast).mean() / 100, rel=1e-5, abs=1e-7)
    (gradient,) = torch.autograd.grad(loss, predicted)
    size = np.abs(forecast.astype(float)) + np.abs(target)
    expected = 2 * np.sign(forecast.astype(float) - target) / np.where(size > 0, size, 1) / 12
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-4)


def test_what_is_no_target_has_no_weight() -> None:
    predicted = torch.tensor([[1.0, 5.0], [3.0, 7.0]])
    target = torch.tensor([[torch.nan, 4.0], [3.0, torch.nan]])
    assert smape_loss(predicted, target).item() == pytest.approx((2 * 1 / 9 + 0) / 2)


def test_windows_are_the_values_before_a_place_and_nothing_before_the_series() -> None:
    series = [np.arange(1.0, 6), np.arange(10.0, 20)]
    windows = cut_windows(series, np.array([2, 7]), 4)
    np.testing.assert_array_equal(windows, [[np.nan, np.nan, 1, 2], [13, 14, 15, 16]])


def plant() -> Plant:
    torch.manual_seed(0)
    return Plant(PlantConfig(patch=2, tokens=3), TokenMLP(5)).eval()


def test_teacher_forcing_scores_every_patch_that_the_series_has_reached() -> None:
    network = plant()
    windows = torch.tensor(
        [
            [4.0, 5, 6, 7, 8, 9, 10, 11],
            [torch.nan, torch.nan, torch.nan, 2, 3, 4, 5, 6],
        ]
    )
    terms = []
    for row in windows:
        context = torch.where(row[:6].isnan(), 0.0, row[:6])
        predicted = network(context[None])[0].flatten()
        for point, truth in zip(predicted.tolist(), row[2:].tolist(), strict=True):
            if truth == truth:
                terms.append(2 * abs(point - truth) / (abs(point) + abs(truth)))
    assert len(terms) == 6 + 5
    assert teacher_forced_smape(network, windows, None).item() == pytest.approx(np.mean(terms), rel=1e-5)
    steep = LipschitzConfig(weight=0.5, limit=0.0, kind="spectral")
    slope = float(torch.linalg.matrix_norm(network.deembed.weight.detach(), ord=2))  # type: ignore[operator]
    with_penalty = teacher_forced_smape(network, windows, steep).item()
    assert with_penalty == pytest.approx(np.mean(terms) + 0.5 * slope, rel=1e-5)


def task(source: SeriesCollection, spec: CellSpec) -> SeriesTask:
    return SeriesTask(spec, PROFILES["quick"], source, Path())


def test_the_last_values_are_held_out_and_short_series_left_out(bench: Bench, spec: CellSpec) -> None:
    source = bench.collection("M4-Quarterly")
    parts = training_parts(task(source, spec), 8)
    usable = [series for series in source.train if len(series) > 16]
    assert 0 < len(usable) == len(parts)
    for part, series in zip(parts, usable, strict=True):
        np.testing.assert_array_equal(part, series[:-8])
    with pytest.raises(TsbenchError, match=r"no series of M4-Quarterly has more than 8 \+ 40 values"):
        training_parts(task(source, spec), 40)


def test_training_windows_end_before_the_held_out_values(
    bench: Bench, spec: CellSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, int]] = []

    def recorded(series: list[np.ndarray], ends: np.ndarray, width: int) -> torch.Tensor:
        seen.extend((int(end), len(values), width) for end, values in zip(ends, series, strict=True))
        return cut_windows(series, ends, width)

    monkeypatch.setattr(f_llm_transfer, "cut_windows", recorded)
    fitted(bench, spec)
    longest = max(map(len, bench.collection("M4-Quarterly").train))
    held_out = [length for end, length, width in seen if end == length == longest and width == 24]
    training = [(end, length) for end, length, _ in seen if length <= longest - 8]
    assert held_out  # validation, whose series are whole
    assert min(end for end, _ in training) >= 9  # one value and a patch
    assert all(end <= length for end, length in training)
    assert len({end for end, _ in training}) > 5


def test_test_parts_of_source_and_target_reach_no_weight(
    bench: Bench, spec: CellSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fitted(bench, spec)
    spoilt = {
        name: [np.concatenate([values[:-8], np.full(8, 1e9)]) for values in series]
        for name, series in {"M4-Quarterly": SOURCE, **TARGETS}.items()
    }
    short_series.install(monkeypatch, tmp_path / "home", spoilt)
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "other"))
    short_series.install(monkeypatch, tmp_path / "other", spoilt)
    after = fitted(Bench(bench.store), spec)
    for name, weights in before.model.state_dict().items():
        assert torch.equal(weights, after.model.state_dict()[name])
    assert (before.observer is None) == (after.observer is None)


def test_it_learns_and_the_observer_never_makes_it_worse(bench: Bench, spec: CellSpec) -> None:
    learned = fit_collection(bench, spec, Stages()).diagnostics
    idle = PROFILES["quick"].model_copy(update={"max_steps": 1, "learning_rate": 1e-12})
    untrained = f_llm_transfer.fit_transfer(
        replace(task(bench.collection("M4-Quarterly"), spec), profile=idle, artifacts=bench.store.root / "x"),
        bench.backbone(spec),
    ).diagnostics
    assert learned["val_smape_plant"] < 0.95 * untrained["val_smape_plant"]
    assert learned["val_smape_closed"] <= learned["val_smape_open"] == learned["val_smape_plant"]
    assert learned["train_series"] == 40
    assert 0 < learned["val_smape_closed"] < 200


def test_targets_with_one_source_and_shape_share_a_training(bench: Bench, spec: CellSpec) -> None:
    fitted(bench, spec)
    artifacts = sorted((Path(bench.store.root).parent / "home" / "artifacts" / "f-llm").iterdir())
    other = spec.model_copy(update={"dataset": "M3-Other"})
    fitted(bench, other)
    assert sorted(artifacts[0].parent.iterdir()) == artifacts
    fitted(bench, spec.model_copy(update={"seed": 1}))
    assert len(list(artifacts[0].parent.iterdir())) > len(artifacts)


def test_short_contexts_are_those_with_zeros_before_them(bench: Bench, spec: CellSpec) -> None:
    forecaster = fitted(bench, spec)
    context = torch.tensor([[5.0, 7, 6, 8, 9]])
    padded = torch.nn.functional.pad(context, (16 - 5, 0))
    assert torch.equal(forecaster.predict(context, 8), forecaster.predict(padded, 8))
    with pytest.raises(ValueError, match="17 steps are not 2 patches of 8"):
        forecaster.predict(torch.ones(1, 17), 8)


@pytest.mark.parametrize("form", ["mlp", "fpt", "open-loop"])
def test_the_other_forms_train_too(bench: Bench, spec: CellSpec, form: str) -> None:
    forecaster = fitted(bench, with_options(spec, form=form))
    assert forecaster.predict(torch.rand(2, 16), 8).shape == (2, 1, 8)
    assert form == "mlp" or forecaster.observer is None


def test_a_horizon_of_several_patches_is_rolled_out(bench: Bench, spec: CellSpec) -> None:
    forecaster = fitted(bench, with_options(spec, patch=4))
    context = torch.rand(2, 16, generator=torch.Generator().manual_seed(0))
    forecast = forecaster.predict(context, 8)
    assert forecast.shape == (2, 1, 8)
    assert torch.equal(forecast[..., :4], forecaster.predict(context, 4))


def test_run_puts_the_transfer_beside_what_needs_no_training(llama: str, tmp_path: Path) -> None:
    table = tsbench.run(
        "f-llm",
        checkpoint=llama,
        dataset=["M3-Quarterly", "M3-Other"],
        profile="quick",
        results=tmp_path / "results",
    )
    quarterly = table[table["dataset"] == "M3-Quarterly"]
    assert list(zip(quarterly["backbone"], quarterly["variant"], strict=True)) == [
        ("naive-last", ""),
        ("naive-seasonal", ""),
        ("naive2", ""),
        ("smollm2", "form=open-loop"),
        ("smollm2", ""),
    ]
    assert list(quarterly["lookback"]) == [10_000] * 3 + [16] * 2
    assert table[["smape", "owa"]].notna().all(axis=None)


def test_the_papers_transfers_fit_the_catalogue() -> None:
    collections = {n: e for n, e in catalogue().entries.items() if isinstance(e, CollectionEntry)}
    assert TRANSFERS.keys() == collections.keys()
    for name, transfer in TRANSFERS.items():
        horizon = collections[name].horizon
        assert collections[transfer.source].name[:2] == {"M3": "M4", "M4": "M3"}[name[:2]]
        if name != "M4-Hourly":
            assert (transfer.lookback, transfer.patch) == (2 * horizon, horizon)
        assert transfer.lookback % transfer.patch == 0
        assert horizon % transfer.patch == 0


def test_what_is_given_goes_before_the_papers_settings() -> None:
    shared = {"method": "f-llm", "backbone": None, "datasets": ["M4-Hourly", "ETTh1"], "seeds": [0]}
    hourly, long = cells(**shared, variants=(FLlmOptions(),))  # type: ignore[arg-type]
    assert (hourly.lookback, hourly.horizon, hourly.train_dataset) == (48, 48, "M3-Monthly")
    assert (long.lookback, long.horizon, long.train_dataset) == (672, 96, None)
    assert hourly.f_llm == FLlmOptions(patch=24)
    assert long.f_llm == FLlmOptions()
    shared["datasets"] = ["M4-Hourly"]
    (own,) = cells(**shared, variants=(FLlmOptions(patch=12),), lookback=36, train_datasets=["m4-daily"])  # type: ignore[arg-type]
    assert (own.lookback, own.f_llm, own.train_dataset) == (36, FLlmOptions(patch=12), "M4-Daily")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": ["ETTh1"]}, "--train-dataset is for --method f-llm on M3 and M4, and for"),
        (
            {"method": "origin", "backbone": "fracast", "variants": (None,)},
            "--train-dataset is for --method f-llm",
        ),
        ({"train_datasets": ["ETTh1"]}, "--train-dataset ETTh1 is no collection; use M4-Quarterly"),
        (
            {"train_datasets": ["M4-Yearly", "M4-Monthly"]},
            "--train-dataset is one collection with --method f-llm; leave out the others",
        ),
        ({"train_datasets": ["M4"]}, "M4 stands for several data sets; choose one of M4-Yearly"),
        (
            {"train_datasets": ["M4-Quartely"]},
            "unknown dataset 'M4-Quartely'; did you mean M3-Quarterly, M4-Quarterly",
        ),
    ],
)
def test_a_source_that_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    asked = {
        "method": "f-llm",
        "backbone": None,
        "datasets": ["M3-Quarterly"],
        "seeds": [0],
        "variants": (FLlmOptions(),),
        "train_datasets": ["M4-Quarterly"],
    }
    with pytest.raises(TsbenchError, match=message):
        cells(**(asked | change))  # type: ignore[arg-type]


def test_a_lookback_that_is_no_multiple_of_the_patch_is_refused_before_work(
    bench: Bench, spec: CellSpec
) -> None:
    with pytest.raises(TsbenchError, match="--lookback 20 is not a multiple of F-LLM's patch of 8 steps"):
        check(bench, [spec.model_copy(update={"lookback": 20})])
    check(bench, with_baselines([spec]))

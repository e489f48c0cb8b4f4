from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.bench.runner import Bench
from tsbench.bench.store import ResultsStore
from tsbench.config import PROFILES, CellSpec, FLlmOptions, TsMemoryOptions
from tsbench.data.windows import WindowGrid
from tsbench.errors import TsbenchError
from tsbench.methods.f_llm import FLlmForecaster, fit
from tsbench.methods.task import Task
from tsbench.registry import load_backbone

LOOKBACK, PATCH = 96, 24


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))


def run(llama: str, results: Path, horizon: int | tuple[int, ...] = 48, **options: object) -> pd.DataFrame:
    return tsbench.run(
        "f-llm",
        checkpoint=llama,
        dataset="demo",
        horizon=horizon,
        lookback=LOOKBACK,
        profile="quick",
        test_stride=50,
        options=FLlmOptions.model_validate({"patch": PATCH, **options}),
        results=results,
    )


def fitted(bench: Bench, spec: CellSpec) -> FLlmForecaster:
    task = bench.task(spec)
    forecaster = fit(task, bench.frozen(spec, task)).forecaster
    assert isinstance(forecaster, FLlmForecaster)
    return forecaster


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Trains for a few steps, where it matters what is trained and not how well."""
    few = {"max_steps": 20, "eval_every": 10}
    monkeypatch.setitem(PROFILES, "quick", PROFILES["quick"].model_copy(update=few))
    return Bench(ResultsStore(tmp_path / "results"))


@pytest.fixture
def spec(llama: str) -> CellSpec:
    return CellSpec(
        method="f-llm",
        backbone="smollm2",
        checkpoint=llama,
        dataset="demo",
        horizon=48,
        lookback=LOOKBACK,
        profile="quick",
        f_llm=FLlmOptions(patch=PATCH),
    )


def with_form(spec: CellSpec, form: str) -> CellSpec:
    assert spec.f_llm is not None
    return spec.model_copy(update={"f_llm": spec.f_llm.model_copy(update={"form": form})})


def test_it_learns_and_the_open_loop_and_naive_rows_stand_beside_it(llama: str, tmp_path: Path) -> None:
    table = run(llama, tmp_path / "results").set_index(["method", "backbone", "variant"]).sort_index()
    assert sorted(table.index) == [
        ("f-llm", "smollm2", f"form=open-loop;patch={PATCH}"),
        ("f-llm", "smollm2", f"patch={PATCH}"),
        ("origin", "naive-last", ""),
        ("origin", "naive-seasonal", ""),
    ]
    assert np.isfinite(table["mse"]).all()
    assert table["mse"]["f-llm"].max() < table["mse"]["origin", "naive-last"].min()
    assert table["crps"]["f-llm"].isna().all()  # point forecasts
    closed = table.loc["f-llm", "smollm2", f"patch={PATCH}"]
    assert closed["val_mse_closed"] <= closed["val_mse_open"]


@pytest.mark.parametrize("form", ["lora", "mlp", "fpt"])
def test_baselines_of_the_same_parts_learn_too(llama: str, tmp_path: Path, form: str) -> None:
    table = run(llama, tmp_path / "results", form=form).set_index("method")
    assert table["mse"]["f-llm"] < table["mse"]["origin"].max()


def test_closed_loop_is_the_open_one_plus_the_observer(bench: Bench, spec: CellSpec) -> None:
    closed, opened = fitted(bench, spec), fitted(bench, with_form(spec, "open-loop"))
    assert opened.observer is None
    context = torch.randn(3, LOOKBACK, generator=torch.Generator().manual_seed(0))
    for name, weights in opened.model.state_dict().items():
        assert torch.equal(weights, closed.model.state_dict()[name])
    without = FLlmForecaster(closed.model, None, closed.rolling)
    assert torch.equal(without.predict(context, 48), opened.predict(context, 48))
    if closed.observer is not None:
        assert not torch.equal(closed.predict(context, 48), opened.predict(context, 48))


@pytest.mark.parametrize("horizon", [24, 72])
def test_the_observer_is_judged_at_the_cells_own_horizon(bench: Bench, spec: CellSpec, horizon: int) -> None:
    """The validation errors of the record, by hand on the very windows: evenly spaced windows x channels."""
    spec = spec.model_copy(update={"horizon": horizon})
    task = bench.task(spec)
    diagnostics = fit(task, bench.frozen(spec, task)).diagnostics
    starts = np.arange(task.borders.val[0], task.borders.val[1] - horizon + 1)
    pairs = [(start, channel) for start in starts for channel in range(task.channels)]
    places = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), 512)).astype(int))
    cut = [
        task.scaled[slice(start - LOOKBACK, start + horizon), c] for start, c in (pairs[p] for p in places)
    ]
    rows = torch.from_numpy(np.stack(cut))
    opened = fitted(bench, with_form(spec, "open-loop")).predict(rows[:, :LOOKBACK], horizon)
    errors = {"open": (opened[:, 0] - rows[:, LOOKBACK:]).square().mean().item()}
    kept = fitted(bench, spec)
    closed = kept.predict(rows[:, :LOOKBACK], horizon)
    errors["closed"] = (closed[:, 0] - rows[:, LOOKBACK:]).square().mean().item()
    for loop, error in errors.items():
        assert diagnostics[f"val_mse_{loop}"] == pytest.approx(error, rel=1e-4)
    assert (kept.observer is None) == (errors["closed"] == errors["open"])


def test_one_training_serves_every_horizon(bench: Bench, spec: CellSpec) -> None:
    fitted(bench, spec)
    artifacts = bench.task(spec).artifacts / "f-llm"
    before = sorted(path.name for path in artifacts.iterdir())
    longer = fitted(bench, spec.model_copy(update={"horizon": 60}))
    assert sorted(path.name for path in artifacts.iterdir()) == before
    context = torch.randn(2, LOOKBACK, generator=torch.Generator().manual_seed(0))
    forecast = longer.predict(context, 60)
    assert forecast.shape == (2, 1, 60)
    assert torch.equal(forecast[..., :48], longer.predict(context, 48))


def test_another_seed_split_or_language_model_is_trained_anew(bench: Bench, spec: CellSpec) -> None:
    assert spec.f_llm is not None
    fitted(bench, with_form(spec, "open-loop"))
    artifacts = bench.task(spec).artifacts / "f-llm"
    for other in (
        spec.model_copy(update={"seed": 1}),
        spec.model_copy(update={"f_llm": spec.f_llm.model_copy(update={"layers": 1})}),
        spec.model_copy(update={"precision": "bf16"}),
    ):
        before = len(list(artifacts.iterdir()))
        fitted(bench, with_form(other, "open-loop"))
        assert len(list(artifacts.iterdir())) == before + 1


def test_training_never_sees_test_rows(bench: Bench, spec: CellSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = []
    cut = Task.pairs

    def recorded(task: Task, grid: WindowGrid, numbers: np.ndarray) -> object:
        latest.append(grid.starts[numbers // task.channels].max() + grid.horizon)
        return cut(task, grid, numbers)

    monkeypatch.setattr(Task, "pairs", recorded)
    fitted(bench, spec)
    assert max(latest) == bench.task(spec).borders.val[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lookback": 100}, "--lookback 100 is not a multiple of F-LLM's patch of 24 steps; use 96"),
        ({"backbone": "naive-last", "checkpoint": None}, "needs a language model, not naive-last"),
        ({"method": "origin", "f_llm": None}, "forecasts only with --method f-llm"),
        ({"samples": 10}, "draws no paths"),
    ],
)
def test_what_does_not_fit_is_refused_before_work(
    bench: Bench, spec: CellSpec, change: dict[str, object], message: str
) -> None:
    from tsbench.bench.checks import check

    with pytest.raises(TsbenchError, match=message):
        check(bench, [spec.model_copy(update=change)])


def test_settings_of_another_method_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match="TsMemoryOptions is not for method 'f-llm'"):
        tsbench.run("f-llm", dataset="demo", options=TsMemoryOptions(), results=tmp_path)


def test_precision_and_layers_reach_the_language_model(llama: str) -> None:
    options = BackboneOptions("smollm2", checkpoint=llama, layers=1, precision="bf16")
    language = load_backbone(options)
    assert "-1layers-bf16-" in language.identity

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import PROFILES, CellSpec, TeacherOptions, TsMemoryOptions
from tsbench.data.dataset import Dataset
from tsbench.data.splits import SplitRule
from tsbench.errors import TsbenchError
from tsbench.methods import origin
from tsbench.methods.fusion import FusedForecaster, predict_windows
from tsbench.methods.task import Fitted, Task, make_task
from tsbench.methods.ts_memory.method import fit
from tsbench.methods.ts_memory.teacher import Teacher
from tsbench.methods.ts_memory.teaching import load_or_build_teacher, train_windows

ROWS, CHANNELS, LOOKBACK, HORIZON = 900, 2, 64, 12
OPTIONS = TsMemoryOptions(teacher=TeacherOptions(pool=12, neighbours=5), plugmem="small")
PROFILE = PROFILES["quick"].model_copy(
    update={
        "max_test_values": 2_000,
        "max_val_values": 600,
        "max_stop_values": 300,
        "max_knowledge_rows": 400,
        "max_train_pairs": 100,
        "batch_size": 4,
        "max_steps": 4,
        "eval_every": 2,
        "patience": 5,
    }
)
Array = NDArray[np.float64]


@dataclass
class TinyBackbone:
    """A fan well above the mean of the last day; embeds a context by its last values."""

    forecast: int = 0
    embedded: int = 0
    name: ClassVar[str] = "tiny"
    identity: ClassVar[str] = "tiny-v1"
    quantile_levels: ClassVar[tuple[float, ...]] = tuple(j / 10 for j in range(1, 10))
    rollout: ClassVar[str] = "direct"
    block: ClassVar[None] = None
    prefix_consistent: ClassVar[bool] = True

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        self.forecast += len(context)
        center = context[:, -24:].mean(dim=1)[:, None, None].expand(-1, 9, horizon)
        width = (context.amax(dim=1) - context.amin(dim=1))[:, None, None]
        return center + width * torch.linspace(-0.1, 0.7, 9)[:, None]

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        self.embedded += len(context)
        return context[:, -8:] - context[:, -24:].mean(dim=1, keepdim=True)


class PointBackbone(TinyBackbone):
    quantile_levels: ClassVar[tuple[float, ...]] = ()


def series() -> Array:
    """Two noisy daily seasons on slow walks."""
    rng = np.random.default_rng(12)
    seasons = np.sin(2 * np.pi * np.arange(ROWS)[:, None] / 24 + np.array([0, 1]))
    return 30 + 5 * seasons + rng.standard_normal((ROWS, CHANNELS)) + rng.standard_normal((ROWS, 1)).cumsum(0)


VALUES = series()


@dataclass(eq=False)
class Run:
    """One cell's task and backbone, with the lines that were printed."""

    task: Task
    frozen: FrozenBackbone
    backbone: TinyBackbone
    lines: list[str] = field(default_factory=list)

    def fit(self) -> Fitted:
        return fit(self.task, self.frozen)

    def teacher(self, **options: Any) -> Teacher:
        chosen = OPTIONS.model_copy(update={"teacher": OPTIONS.teacher.model_copy(update=options)})
        return load_or_build_teacher(self.task, self.frozen, chosen)

    def files(self, pattern: str) -> dict[str, bytes]:
        """Contents of the artefacts with this name, by path."""
        root = self.task.artifacts
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob(pattern)}


def prepare(
    folder: Path,
    values: Array = VALUES,
    options: TsMemoryOptions = OPTIONS,
    on_progress: Callable[[str], None] = lambda line: None,
    backbone: TinyBackbone | None = None,
    **fields: Any,
) -> Run:
    """A cell whose artefacts lie in a folder; its content keys ignore that `values` differ."""
    times = np.datetime64("2020-01-01", "s") + np.arange(ROWS) * np.timedelta64(1, "h")
    split = SplitRule("ratio", 0.7, 0.1, 0.2)
    dataset = Dataset("toy", values, times, ("a", "b"), "1h", 24, split, (HORIZON,), "0" * 64)
    spec = CellSpec(
        method="ts-memory",
        backbone="tiny",
        dataset="toy",
        horizon=HORIZON,
        lookback=LOOKBACK,
        profile="quick",
        options=options,
        **fields,
    )
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        on_progress(line)

    task = make_task(spec, PROFILE, dataset, folder / "artifacts", progress)
    backbone = backbone or TinyBackbone()
    frozen = FrozenBackbone(backbone, task.scaled, LOOKBACK, folder / "forecasts", 10**9)
    return Run(task, frozen, backbone, lines)


def replaced(first: int, fill: str) -> Array:
    """The series with every row from `first` on replaced."""
    values = VALUES.copy()
    noise = np.random.default_rng(99).standard_normal(values[first:].shape)
    values[first:] = 1e3 * noise if fill == "noise" else 1e9
    return values


@pytest.fixture(scope="module")
def fitted_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Fitted]:
    run = prepare(tmp_path_factory.mktemp("fitted"))
    return run, run.fit()


VAL, TEST = 630, 720  # first rows of the splits


def test_fit_learns_and_fuses_with_a_weight_of_the_validation_split(fitted_run: tuple[Run, Fitted]) -> None:
    run, fitted = fitted_run
    assert run.task.borders.val == (VAL, TEST)
    forecaster, curve = fitted.forecaster, fitted.validation_curve
    assert isinstance(forecaster, FusedForecaster)
    assert forecaster.base is run.backbone
    assert curve is not None
    assert forecaster.alpha == curve.best("crps")
    assert 0 < forecaster.alpha < 1
    windows = run.task.windows("val", PROFILE.max_val_values)
    assert fitted.diagnostics["val_windows"] == len(windows.starts) < windows.total
    assert fitted.diagnostics["val_windows_total"] == windows.total
    assert fitted.diagnostics["steps_trained"] == 4
    assert 50 < fitted.diagnostics["train_pairs"] <= PROFILE.max_train_pairs
    for name in ("teacher_mae", "base_mae", "gate_open", "confidence_mean"):
        for split in ("train", "val"):
            assert np.isfinite(fitted.diagnostics[f"{name}_{split}"])
    forecast = predict_windows(forecaster, run.frozen, run.task.test_windows().starts, HORIZON)
    assert (forecast.diff(dim=2) >= 0).all()


def test_train_windows_lie_inside_the_train_rows_and_queries_are_in_the_knowledge_base(
    fitted_run: tuple[Run, Fitted],
) -> None:
    run, _ = fitted_run
    windows = train_windows(run.task)
    assert windows.known.starts.min() - LOOKBACK >= 0
    assert windows.known.starts.max() + HORIZON <= VAL
    assert np.isin(windows.queries.starts, windows.known.starts).all()
    assert len(windows.known.starts) * CHANNELS <= PROFILE.max_knowledge_rows
    assert len(windows.queries.starts) * CHANNELS <= PROFILE.max_train_pairs
    teacher = run.teacher()
    np.testing.assert_array_equal(teacher.query_starts, windows.queries.starts)
    assert np.isin(teacher.neighbours, windows.known.starts).all()
    assert (np.abs(teacher.neighbours - teacher.query_starts[:, None, None]) >= HORIZON).all()


@pytest.mark.parametrize("fill", ["noise", "1e9"])
def test_when_the_test_rows_are_replaced_then_everything_learnt_is_bit_identical(
    tmp_path: Path, fitted_run: tuple[Run, Fitted], fill: str
) -> None:
    run, fitted = fitted_run
    other = prepare(tmp_path, replaced(TEST, fill))
    assert not np.array_equal(other.task.scaled, run.task.scaled)
    refitted = other.fit()
    for pattern in ("teacher.safetensors", "model.safetensors"):
        assert len(run.files(pattern)) == 1
        assert other.files(pattern) == run.files(pattern)
    assert isinstance(fitted.forecaster, FusedForecaster)
    assert isinstance(refitted.forecaster, FusedForecaster)
    assert refitted.forecaster.alpha == fitted.forecaster.alpha
    assert refitted.diagnostics == fitted.diagnostics
    for name, curve in vars(fitted.validation_curve).items():
        np.testing.assert_array_equal(getattr(refitted.validation_curve, name), curve)


@pytest.mark.parametrize("fill", ["noise", "1e9"])
def test_when_the_validation_rows_are_replaced_too_then_the_teacher_is_bit_identical(
    tmp_path: Path, fitted_run: tuple[Run, Fitted], fill: str
) -> None:
    run, _ = fitted_run
    other = prepare(tmp_path, replaced(VAL, fill))
    other.teacher()
    assert other.files("teacher.safetensors") == run.files("teacher.safetensors")


def test_when_a_train_row_is_changed_then_the_teacher_is_another(
    tmp_path: Path, fitted_run: tuple[Run, Fitted]
) -> None:
    run, _ = fitted_run
    values = VALUES.copy()
    values[VAL - 1] += 1
    other = prepare(tmp_path, values)
    other.teacher()
    assert other.files("teacher.safetensors") != run.files("teacher.safetensors")


@pytest.mark.parametrize("place", [0, 3, -1])
def test_when_rows_from_a_windows_first_target_on_are_replaced_then_its_forecast_is_unchanged(
    tmp_path: Path, fitted_run: tuple[Run, Fitted], place: int
) -> None:
    run, fitted = fitted_run
    start = run.task.test_windows().starts[place]
    before, after = np.array([start]), np.array([start + 1])
    other = prepare(tmp_path, replaced(int(start), "noise"))

    def forecasts(frozen: FrozenBackbone, starts: NDArray[np.int64]) -> list[torch.Tensor]:
        ((_, base),) = frozen.forecasts(starts, HORIZON)
        return [base, predict_windows(fitted.forecaster, frozen, starts, HORIZON)]

    for expected, actual in zip(forecasts(run.frozen, before), forecasts(other.frozen, before), strict=True):
        assert torch.equal(actual, expected)
    for expected, actual in zip(forecasts(run.frozen, after), forecasts(other.frozen, after), strict=True):
        assert not torch.equal(actual, expected)


def test_when_fitted_again_then_everything_is_reused(fitted_run: tuple[Run, Fitted]) -> None:
    run, fitted = fitted_run
    written = {
        path: path.stat().st_mtime_ns
        for path in run.task.artifacts.rglob("*")
        if path.is_file() and path.name != "lock"
    }
    again = prepare(run.task.artifacts.parent)
    refitted = again.fit()
    assert again.backbone.forecast == 0
    assert "teacher: already built" in again.lines
    assert not any(line.startswith("plugmem: step") for line in again.lines)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert refitted.diagnostics == fitted.diagnostics
    starts = run.task.test_windows().starts[:5]
    expected = predict_windows(fitted.forecaster, run.frozen, starts, HORIZON)
    assert torch.equal(predict_windows(refitted.forecaster, again.frozen, starts, HORIZON), expected)


@pytest.mark.parametrize("step", [2, 4])
def test_when_interrupted_during_training_then_the_resumed_weights_are_bit_identical(
    tmp_path: Path, fitted_run: tuple[Run, Fitted], step: int
) -> None:
    def interrupt(line: str) -> None:
        if line.startswith(f"plugmem: step {step},"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, on_progress=interrupt).fit()
    resumed = prepare(tmp_path)
    assert not resumed.files("model.safetensors")
    resumed.fit()
    assert resumed.files("model.safetensors") == fitted_run[0].files("model.safetensors")


def test_exclusion_rule_gets_a_teacher_of_its_own(tmp_path: Path) -> None:
    run = prepare(tmp_path)
    nearest = {}
    for rule in ("self", "target", "window"):
        teacher = run.teacher(exclusion=rule)
        nearest[rule] = np.abs(teacher.neighbours - teacher.query_starts[:, None, None]).min()
    assert nearest["self"] < HORIZON <= nearest["target"] < LOOKBACK + HORIZON <= nearest["window"]
    files = run.files("teacher.safetensors")
    assert len(files) == len(set(files.values())) == 3
    assert len(run.files("teacher.json")) == 3


def test_a_build_that_is_cut_off_before_its_card_leaves_no_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path, content: dict[str, object]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tsbench.methods.ts_memory.teaching.write_card", cut)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path).teacher()
    assert list(tmp_path.rglob("teacher.safetensors")) == []


def test_seed_and_recipe_train_anew_and_the_policy_for_the_weight_does_not(
    tmp_path: Path, fitted_run: tuple[Run, Fitted]
) -> None:
    run, fitted = fitted_run
    oracle = OPTIONS.model_copy(update={"alpha_policy": "oracle"})
    before = run.files("*.safetensors")
    refitted = prepare(run.task.artifacts.parent, options=oracle).fit()
    assert run.files("*.safetensors") == before
    assert refitted.diagnostics == fitted.diagnostics
    prepare(tmp_path, seed=1).fit()
    prepare(tmp_path, options=OPTIONS.model_copy(update={"recipe": "released"})).fit()
    other = prepare(tmp_path)
    assert other.files("teacher.safetensors") == run.files("teacher.safetensors")
    weights = other.files("model.safetensors")
    assert len(weights) == 2
    assert len({*weights.values(), *run.files("model.safetensors").values()}) == 3


def test_without_retrieval_no_teacher_is_built_and_nothing_is_embedded(tmp_path: Path) -> None:
    run = prepare(tmp_path, options=OPTIONS.model_copy(update={"ablation": "no-retrieval"}))
    fitted = run.fit()
    assert isinstance(fitted.forecaster, FusedForecaster)
    assert run.backbone.embedded == 0
    assert not (run.task.artifacts / "teachers").exists()
    assert len(run.files("model.safetensors")) == 1
    assert not any(name.startswith("teacher") for name in fitted.diagnostics)


def test_at_weight_zero_the_forecast_is_the_backbones_and_the_companion_is_not_called(
    fitted_run: tuple[Run, Fitted],
) -> None:
    class Refusing(TinyBackbone):
        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            raise AssertionError("called at weight 0")

    run, fitted = fitted_run
    assert isinstance(fitted.forecaster, FusedForecaster)
    starts = run.task.test_windows().starts
    alone = replace(fitted.forecaster, companion=Refusing(), alpha=0.0)
    expected = predict_windows(origin.fit(run.task, run.frozen).forecaster, run.frozen, starts, HORIZON)
    assert torch.equal(predict_windows(alone, run.frozen, starts, HORIZON), expected)


def test_backbone_without_a_median_and_objectives_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match="needs a backbone with a median forecast, and 'tiny' has none"):
        prepare(tmp_path, backbone=PointBackbone()).fit()
    unknown = OPTIONS.model_copy(update={"recipe": "released", "ablation": "no-delta-align"})
    with pytest.raises(TsbenchError, match="no-delta-align"):
        prepare(tmp_path, options=unknown).fit()
    assert not (tmp_path / "artifacts").exists()

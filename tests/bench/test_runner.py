from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy

from tsbench.bench import runner
from tsbench.bench.checks import check
from tsbench.bench.records import Failure, Record
from tsbench.bench.runner import Bench, cache_budget, describe, run_cell, run_cells, with_baselines
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, TeacherOptions, TsMemoryOptions
from tsbench.data.splits import SplitRule
from tsbench.errors import TsbenchError
from tsbench.registry import BUILT_IN
from tsbench.report.labels import is_leak

TARGET = TsMemoryOptions(plugmem="tiny")
SELF = TsMemoryOptions(plugmem="tiny", teacher=TeacherOptions(exclusion="self"))
CONTROL = TsMemoryOptions(plugmem="tiny", ablation="no-retrieval")


def cell(options: TsMemoryOptions | None = None, **fields: Any) -> CellSpec:
    shared = {
        "method": "origin" if options is None else "ts-memory",
        "backbone": "toy",
        "dataset": "demo",
        "horizon": 24,
        "lookback": 48,
        "profile": "quick",
        "options": options,
    }
    return CellSpec.model_validate(shared | fields)


NAIVE = [cell(backbone="naive-last"), cell(backbone="naive-seasonal")]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TSBENCH_MIRROR", raising=False)
    monkeypatch.delenv("TSBENCH_CACHE_GB", raising=False)
    toy.install(monkeypatch)
    return tmp_path


@pytest.fixture
def bench(workplace: Path) -> Bench:
    return Bench(ResultsStore(workplace / "results"))


def test_baselines_stand_before_the_method_and_only_once() -> None:
    assert with_baselines([cell(TARGET)]) == [*NAIVE, cell(), cell(CONTROL), cell(TARGET)]
    assert with_baselines([cell()]) == [*NAIVE, cell()]
    assert with_baselines([NAIVE[1]]) == NAIVE
    assert with_baselines([]) == []


def test_exclusions_and_recipes_share_one_control() -> None:
    released = TARGET.model_copy(update={"recipe": "released", "alpha_policy": "oracle"})
    assert with_baselines([cell(TARGET), cell(SELF), cell(released)]) == [
        *NAIVE,
        cell(),
        cell(CONTROL),
        cell(TARGET),
        cell(SELF),
        cell(released),
    ]


def test_a_control_that_is_asked_for_is_not_repeated() -> None:
    assert with_baselines([cell(CONTROL), cell(TARGET)]) == [*NAIVE, cell(), cell(CONTROL), cell(TARGET)]


@pytest.mark.parametrize("change", [{"plugmem": "small"}, {"alpha_criterion": "mse"}])
def test_a_control_has_the_module_and_criterion_of_its_method(change: dict[str, Any]) -> None:
    other = TARGET.model_copy(update=change)
    assert cell(CONTROL.model_copy(update=change)) in with_baselines([cell(other)])


def test_seeds_and_precisions_share_the_rows_without_training() -> None:
    wanted = [cell(TARGET, seed=seed, precision="bf16") for seed in (1, 2)]
    rows = with_baselines(wanted)
    assert rows[:3] == [*NAIVE, cell()]
    assert [(row.seed, row.precision) for row in rows[3:]] == [(1, "bf16")] * 2 + [(2, "bf16")] * 2


def test_checkpoint_and_rollout_belong_to_the_backbone_alone() -> None:
    rows = with_baselines([cell(TARGET, rollout="expand", checkpoint="here")])
    assert rows[:2] == NAIVE
    assert {(row.rollout, row.checkpoint) for row in rows[2:]} == {("expand", "here")}


def test_check_accepts_what_can_run(bench: Bench) -> None:
    check(bench, with_baselines([cell(TARGET), cell(SELF)]))
    assert bench.store.records() == []


def test_check_reports_every_mistake_once(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "file").touch()
    monkeypatch.setenv("TSBENCH_CACHE_GB", "much")
    wanted = [
        cell(horizon=801),
        cell(TARGET, horizon=801),
        cell(TARGET, backbone="naive-last"),
        cell(TARGET, dataset="M3-Yearly"),
        cell(device="tpu"),
        cell(),
    ]
    with pytest.raises(TsbenchError) as caught:
        check(Bench(ResultsStore(workplace / "file")), wanted)
    causes = [
        "cannot write",
        "TSBENCH_CACHE_GB is 'much'",
        "horizon 801 is longer than the test split",
        "method 'ts-memory' needs a backbone with an encoder",
        "method 'ts-memory' learns from the windows of a long data set; on M3-Yearly use",
        "unknown device 'tpu'",
    ]
    lines = str(caught.value).splitlines()
    assert len(lines) == len(causes)
    assert all(line.startswith(cause) for line, cause in zip(lines, causes, strict=True))


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (
            cell(samples=10),
            "toy forecasts quantiles and draws no paths; leave out --samples, or use a backbone ",
        ),
        (
            cell(TARGET, backbone="toy-paths", samples=10),
            "method 'ts-memory' fuses quantiles and draws no paths",
        ),
        (
            cell(backbone="toy-paths", horizon=97, samples=10),
            "toy-paths draws paths of at most 96 steps, not 97; leave out --samples or use a shorter horizon",
        ),
    ],
)
def test_check_finds_that_no_paths_can_be_drawn(bench: Bench, spec: CellSpec, line: str) -> None:
    with pytest.raises(TsbenchError) as caught:
        check(bench, with_baselines([spec]))
    (said,) = str(caught.value).splitlines()
    assert said.startswith(line)


def test_check_looks_at_train_and_validation_rows_only_for_methods_that_use_them(bench: Bench) -> None:
    check(bench, [cell(lookback=2390)])
    with pytest.raises(TsbenchError, match="but the train split has 2400"):
        check(bench, [cell(TARGET, lookback=2390)])


def test_a_record_tells_what_was_scored_and_how(bench: Bench) -> None:
    record = run_cell(bench, cell(TARGET, test_stride=50))
    assert (record.windows, record.windows_total, record.test_stride) == (16, 777, 50)
    assert record.levels == toy.Toy.quantile_levels
    assert record.key == record.spec.content_hash(bench.dataset("demo").sha256)
    assert record.window_scores is not None
    np.testing.assert_array_equal(record.window_scores.start, np.arange(3200, 3977, 50))
    assert record.metrics["mse"] == pytest.approx(record.window_scores.mse.mean(), rel=1e-6)
    assert record.metrics["mae"] == pytest.approx(record.window_scores.mae.mean(), rel=1e-6)
    pooled = record.window_scores.pinball.mean() / record.window_scores.abs_target.mean()
    assert record.metrics["crps"] == pytest.approx(pooled, rel=1e-5)
    assert record.metrics["train_pairs"] > 0
    assert {f"teacher_mae_{split}" for split in ("train", "val")} < record.metrics.keys()
    assert 0 <= record.metrics["gate_open_val"] <= 1


def test_a_record_shows_some_of_its_forecasts_and_their_errors(bench: Bench) -> None:
    spec = cell(backbone="naive-last", test_stride=50)
    run_cell(bench, spec)
    record = bench.store.load(bench.key(spec))
    assert record is not None
    assert record.details is not None
    details, samples = record.details, record.details.samples
    dataset = bench.dataset("demo")
    train = dataset.values[:2400]
    scaled = (dataset.values - train.mean(0)) / train.std(0)
    starts = np.arange(3200, 3977, 50)[[0, 5, 10, 15]]
    channels = [dataset.channels.index(name) for name in samples.channels]
    assert samples.start.tolist() == starts.tolist()
    assert samples.time.tolist() == dataset.timestamps[starts].tolist()
    for place, start in enumerate(starts):
        context, target = scaled[start - 48 : start, channels].T, scaled[start : start + 24, channels].T
        np.testing.assert_allclose(samples.context[place], context, atol=2e-3)
        np.testing.assert_allclose(samples.target[place], target, atol=2e-3)
        median = np.broadcast_to(context[:, -1:], target.shape)
        np.testing.assert_allclose(samples.forecast[place, :, 4], median, atol=2e-3)
    assert details.levels.tolist() == list(record.levels)
    assert details.mae.mean() == pytest.approx(record.metrics["mae"], rel=1e-5)
    pooled = details.pinball.mean() / details.abs_target.mean()
    assert record.metrics["crps"] == pytest.approx(pooled, rel=1e-5)
    assert details.below[8] - details.below[0] == pytest.approx(record.metrics["coverage_80"], abs=0.01)
    assert (bench.store.root / "details" / "demo").is_dir()


def test_a_record_says_what_each_stage_cost_and_nothing_for_what_was_there_before(bench: Bench) -> None:
    first = run_cell(bench, cell(TARGET, test_stride=50))
    stages = ("embed", "teacher", "train", "forecast", "tune", "score")
    assert first.costs.keys() == {f"{what}_{stage}" for stage in stages for what in ("seconds", "rows")}
    assert all(value > 0 for value in first.costs.values())
    assert sum(first.costs[f"seconds_{stage}"] for stage in stages) <= first.provenance.wall_s
    channels = bench.dataset("demo").values.shape[1]
    assert first.costs["rows_score"] == first.windows * channels
    assert first.costs["rows_tune"] == first.metrics["val_windows"] * channels
    again = run_cell(bench, cell(TARGET, test_stride=100))  # reads weights, teacher, forecasts
    assert again.costs["rows_score"] == again.windows * channels
    assert again.costs["rows_train"] == again.costs["seconds_train"] == 0
    assert "rows_forecast" not in again.costs
    found = bench.store.load(first.key)
    assert found is not None
    assert found.costs == first.costs
    assert found.metrics == first.metrics


def test_probts_scores_are_those_of_the_data_as_they_are(bench: Bench) -> None:
    record = run_cell(bench, cell(backbone="naive-last", test_stride=50))
    values = bench.dataset("demo").values
    starts = np.arange(3200, 3977, 50)
    targets = np.stack([values[start : start + 24] for start in starts])
    errors = np.abs(targets - values[starts - 1][:, None])
    expected = errors.sum((1, 2)) / np.abs(targets).sum((1, 2))
    assert record.metrics["probts_nmae"] == pytest.approx(expected.mean(), rel=1e-5)
    assert 0 < record.metrics["probts_crps"] < 2 * record.metrics["probts_nmae"]
    assert record.metrics["nmae"] == pytest.approx(record.metrics["mae"] / record.metrics["mean_abs_target"])


def test_sampled_paths_add_metrics_and_change_no_other(bench: Bench) -> None:
    spec = cell(backbone="toy-paths", samples=200, test_stride=50)
    naive_last, naive_seasonal, record = run_cells(bench, with_baselines([spec]))
    plain = run_cell(bench, cell(backbone="toy-paths", test_stride=50))
    assert isinstance(naive_last, Record)
    assert isinstance(naive_seasonal, Record)
    assert isinstance(record, Record)
    assert record.key != plain.key
    own = {name: value for name, value in record.metrics.items() if name not in plain.metrics}
    assert [*own] == [
        "samples",
        "crps_samples",
        "crps_samples_fair",
        "crps_samples_plain",
        "coverage_80_samples",
        "width_80_samples",
    ]
    assert {name: record.metrics[name] for name in plain.metrics} == plain.metrics
    assert "samples" not in naive_last.metrics | naive_seasonal.metrics
    assert own["samples"] == 200
    assert own["width_80_samples"] == pytest.approx(2 * 1.2816, rel=0.02)  # of the toy's normal noise
    assert own["crps_samples_plain"] > own["crps_samples_fair"]
    pooled = own["crps_samples_fair"] / record.metrics["mean_abs_target"]
    assert own["crps_samples"] == pytest.approx(pooled, rel=1e-6)
    loaded = bench.store.load(record.key)
    assert loaded is not None
    assert loaded.spec.samples == 200
    assert loaded.metrics == record.metrics


def test_the_oracle_takes_the_optimum_of_the_test_split_and_is_marked(bench: Bench) -> None:
    honest = run_cell(bench, cell(TARGET))
    oracle = run_cell(bench, cell(TARGET.model_copy(update={"alpha_policy": "oracle"})))
    assert honest.curves is not None
    assert oracle.curves is not None
    for split in ("val", "test"):  # the same training, scored on the same windows
        for name, curve in vars(honest.curves)[split].items():
            np.testing.assert_array_equal(curve, vars(oracle.curves)[split][name])
    grid = honest.curves.alpha
    assert honest.alpha == grid[np.argmin(honest.curves.val["crps"])]
    assert oracle.alpha == grid[np.argmin(honest.curves.test["crps"])] == honest.metrics["oracle_alpha"]
    for name in ("mse", "mae", "crps"):
        place = list(grid).index(oracle.alpha)
        assert oracle.metrics[name] == pytest.approx(honest.curves.test[name][place], rel=1e-6)
        assert honest.metrics[f"oracle_{name}"] == honest.curves.test[name][place]
    assert oracle.metrics["crps"] <= honest.metrics["crps"]
    assert is_leak(oracle.spec)
    assert not is_leak(honest.spec)


@pytest.mark.parametrize("criterion", ["mse", "mae"])
def test_another_criterion_chooses_by_its_own_curve(bench: Bench, criterion: str) -> None:
    record = run_cell(bench, cell(TARGET.model_copy(update={"alpha_criterion": criterion})))
    assert record.curves is not None
    assert record.alpha == record.curves.alpha[np.argmin(record.curves.val[criterion])]


def test_the_control_never_asks_for_an_embedding(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.Toy, "embed", None)
    record = run_cell(bench, cell(CONTROL))
    assert record.alpha is not None
    assert "teacher_mae_train" not in record.metrics


def test_a_finished_cell_is_read_not_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_cell(bench, cell())
    monkeypatch.setattr(Bench, "task", None)
    lines: list[str] = []
    again = run_cell(Bench(bench.store, progress=lines.append), cell())
    assert lines == ["already done"]
    assert again.metrics == first.metrics
    assert again.provenance == first.provenance


def test_what_fails_does_not_stop_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: toy.Toy, context: torch.Tensor, horizon: int) -> torch.Tensor:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(toy.Toy, "predict", fail)
        failed, record = run_cells(bench, [cell(), NAIVE[0]])
    assert isinstance(failed, Failure)
    assert isinstance(record, Record)
    assert failed.error == "ZeroDivisionError"
    assert failed.traceback.startswith("Traceback")
    assert bench.store.failures() == [failed]
    assert isinstance(run_cells(bench, [cell()])[0], Record)
    assert bench.store.failures() == []


def test_bad_input_inside_a_cell_is_recorded_without_a_traceback(bench: Bench) -> None:
    (failed,) = run_cells(bench, [cell(backbone="naive-seasonal", lookback=12)])
    assert isinstance(failed, Failure)
    assert "use a lookback of at least 24" in failed.error
    assert failed.traceback == ""


def test_data_and_backbones_are_loaded_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(options: Any) -> toy.Toy:
        loaded.append(options.name)
        return toy.Toy(options.name, season=24)

    monkeypatch.setattr(toy, "load", load)
    assert bench.dataset("demo") is bench.dataset("demo")
    assert bench.backbone(cell()) is bench.backbone(cell(TARGET, seed=4, horizon=12))
    assert bench.backbone(cell()) is not bench.backbone(cell(rollout="expand"))
    assert loaded == ["toy", "toy"]


def test_only_forecasts_that_cost_something_are_cached(bench: Bench, workplace: Path) -> None:
    run_cell(bench, NAIVE[0])
    assert not (workplace / "home" / "forecasts").exists()
    run_cell(bench, cell())
    assert list((workplace / "home" / "forecasts").rglob("values.f32"))


def test_data_of_ones_own_counts_with_its_split_and_season(bench: Bench) -> None:
    demo = replace(bench.dataset("demo"), name="mine")
    changes: list[dict[str, Any]] = [
        {},
        {"split": SplitRule("ratio", 0.7, 0.1, 0.2)},
        {"season": 12},
        {"sha256": "0" * 64},
    ]
    keys = {
        Bench(bench.store, own_data={"mine": replace(demo, **change)}).key(cell(dataset="mine"))
        for change in changes
    }
    assert len(keys) == len(changes)


def test_results_of_an_older_revision_are_not_reused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_key, naive_key = bench.key(cell()), bench.key(cell(backbone="naive-last"))
    revised = [replace(entry, revision=2) if entry.name == "toy" else entry for entry in BUILT_IN["backbone"]]
    monkeypatch.setitem(BUILT_IN, "backbone", tuple(revised))
    assert bench.key(cell()) != toy_key
    assert bench.key(cell(backbone="naive-last")) == naive_key


def test_the_cache_budget_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_budget() == 20 * 10**9
    for text, size in (("1.5", 1_500_000_000), ("0", 0), ("2e2", 200 * 10**9)):
        monkeypatch.setenv("TSBENCH_CACHE_GB", text)
        assert cache_budget() == size


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (cell(), "demo H=24: origin on toy, seed 0"),
        (cell(SELF, seed=3), "demo H=24: ts-memory (exclusion self) on toy, seed 3"),
        (cell(CONTROL), "demo H=24: ts-memory (no-retrieval) on toy, seed 0"),
    ],
)
def test_describe_names_a_cell_in_one_line(spec: CellSpec, line: str) -> None:
    assert describe(spec) == line


def test_teachers_are_refused_to_methods_that_have_none(bench: Bench) -> None:
    with pytest.raises(TsbenchError, match="method 'origin' has no teacher; use --method ts-memory"):
        runner.build_teachers(bench, [cell(TARGET), cell()])
    with pytest.raises(TsbenchError, match="'no-retrieval' has no teacher"):
        runner.build_teachers(bench, [cell(CONTROL)])

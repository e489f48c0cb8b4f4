from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy

import tsbench
from tsbench import TsbenchError
from tsbench.bench.columns import COLUMNS
from tsbench.bench.executor import Workers
from tsbench.bench.runner import Bench
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, TeacherOptions, TsMemoryOptions
from tsbench.data.dataset import Dataset


class RepeatLast:
    """A forecaster as a user writes it."""

    quantile_levels = (0.5,)

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        return context[:, None, -1:].expand(-1, 1, horizon)


MINE: Any = RepeatLast()


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TSBENCH_MIRROR", raising=False)
    toy.install(monkeypatch)
    return tmp_path


@pytest.fixture
def own() -> Dataset:
    """The first 1,500 rows of `demo` under a name of their own."""
    demo = tsbench.load_dataset("demo")
    return replace(
        demo, name="mine", values=demo.values[:1500], timestamps=demo.timestamps[:1500], sha256="f" * 64
    )


def test_run_returns_one_row_per_cell_with_certificate_and_metrics(workplace: Path) -> None:
    lines: list[str] = []
    table = tsbench.run(
        backbone="toy", dataset="demo", horizon=24, lookback=48, profile="quick", progress=lines.append
    )
    assert list(table["method"]) == ["origin", "origin", "origin", "ts-memory", "ts-memory"]
    assert list(table["backbone"]) == ["naive-last", "naive-seasonal", "toy", "toy", "toy"]
    assert list(table["ablation"])[3:] == ["no-retrieval", "none"]
    assert table[["mse", "mae", "crps"]].notna().all(axis=None)
    assert set(COLUMNS) - {"metric", "value"} <= set(table.columns)
    assert lines[0] == "[1/5] demo H=24: origin on naive-last, seed 0"
    assert len(ResultsStore(workplace / "results").records()) == 5


def test_several_jobs_are_workers_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(bench: Bench, workers: Workers, cells: list[CellSpec], act: object) -> None:
        asked.extend([workers, len(cells)])
        raise TsbenchError("no workers today")

    monkeypatch.setattr("tsbench.bench.executor.run_parallel", refuse)
    with pytest.raises(TsbenchError, match="no workers today"):
        tsbench.run("origin", "toy", "demo", 24, lookback=48, profile="quick", jobs=2)
    assert asked == [Workers("local", 2), 3]


def test_run_reuses_what_is_stored_whatever_the_spelling_of_the_name() -> None:
    def run(name: str, lines: list[str]) -> list[str]:
        table = tsbench.run(
            method="origin",
            backbone="naive-last",
            dataset=name,
            horizon=[12, 24],
            lookback=48,
            profile="quick",
            baselines=False,
            progress=lines.append,
        )
        assert list(table["horizon"]) == [24, 12]
        return list(table["key"])

    first: list[str] = []
    second: list[str] = []
    assert run("demo", first) == run("DEMO", second)
    assert "already done" not in first
    assert second.count("already done") == 2


def test_run_takes_several_data_sets_seeds_and_its_own_options() -> None:
    options = TsMemoryOptions(teacher=TeacherOptions(exclusion="self", neighbours=5), plugmem="tiny")
    table = tsbench.run(
        backbone="toy",
        dataset=["demo"],
        horizon=24,
        lookback=48,
        seed=[0, 1],
        profile="quick",
        options=options,
        test_stride=40,
        results="elsewhere",
        baselines=False,
    )
    assert list(table["seed"]) == [0, 1]
    assert set(table["variant"]) == {"exclusion=self;neighbours=5;plugmem=tiny"}
    assert set(table["test_stride"]) == {40}
    assert Path("elsewhere/records/demo").is_dir()


def test_run_transfers_a_memory_module_between_data_sets_and_backbones(own: Dataset) -> None:
    table = tsbench.run(
        backbone="toy",
        dataset=own,
        horizon=24,
        lookback=48,
        profile="quick",
        train_dataset="demo",
        plugmem_from="toy-paths",
        baselines=False,
    )
    assert list(table["method"]) == ["ts-memory"]
    spec = CellSpec.model_validate_json(table.loc[0, "spec"])
    assert (spec.train_dataset, spec.plugmem_from) == ("demo", "toy-paths")


def test_run_scores_sampled_paths_of_a_backbone_that_draws_them() -> None:
    table = tsbench.run(
        method="origin",
        backbone="toy-paths",
        dataset="demo",
        horizon=24,
        lookback=48,
        profile="quick",
        samples=10,
        baselines=False,
    )
    assert list(table["samples"]) == [10]
    assert (table["crps_samples_plain"] > table["crps_samples_fair"]).all()


def test_run_measures_a_data_set_of_ones_own(own: Dataset) -> None:
    table = tsbench.run(
        method="origin", backbone="naive-last", dataset=own, horizon=24, lookback=48, profile="quick"
    )
    assert set(table["dataset"]) == {"mine"}
    assert set(table["windows_total"]) == {300 - 24 + 1}
    assert set(table["data_sha256"]) == {"f" * 64}


def test_run_reports_all_mistakes_at_once() -> None:
    with pytest.raises(TsbenchError) as caught:
        tsbench.run(backbone="nope", dataset=["demo", "nothing"], horizon=24)
    assert [line.split(";")[0] for line in str(caught.value).splitlines()] == [
        "unknown backbone 'nope'",
        "unknown dataset 'nothing'",
    ]


def test_when_a_cell_fails_then_run_raises_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: toy.Toy, context: torch.Tensor, horizon: int) -> torch.Tensor:
        raise RuntimeError("the toy is broken")

    monkeypatch.setattr(toy.Toy, "predict", fail)
    with pytest.raises(TsbenchError, match=r"^demo: the toy is broken$"):
        tsbench.run(method="origin", backbone="toy", dataset="demo", horizon=24, profile="quick")


@pytest.mark.parametrize(("stride", "drop_last"), [(1, None), (7, None), (1, 64)])
def test_evaluate_equals_a_loop_over_the_test_windows(stride: int, drop_last: int | None) -> None:
    demo = tsbench.load_dataset("demo")
    scores = tsbench.evaluate(MINE, demo, 24, lookback=48, stride=stride, drop_last=drop_last)

    train = demo.values[:2400]
    scaled = (demo.values - train.mean(axis=0)) / train.std(axis=0)
    starts = list(range(3200, 4000 - 24 + 1, stride))
    if drop_last:
        starts = starts[: len(starts) // drop_last * drop_last]
    targets = np.stack([scaled[start : start + 24] for start in starts])
    errors = targets - np.stack([scaled[start - 1 : start] for start in starts])
    assert scores.n_windows == len(starts)
    assert scores.mse == pytest.approx((errors**2).mean(), rel=1e-6)
    assert scores.mae == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    # The weighted quantile loss of a median alone is the absolute error over the absolute target.
    assert scores.crps == pytest.approx(np.abs(errors).mean() / np.abs(targets).mean(), rel=1e-6)
    in_data_units = np.abs(errors * train.std(axis=0)).sum((1, 2))
    sizes = np.stack([np.abs(demo.values[start : start + 24]).sum() for start in starts])
    for score in (scores.probts_nmae, scores.probts_crps):
        assert score.mean == pytest.approx((in_data_units / sizes).mean(), rel=1e-6)


def test_evaluate_gives_a_users_forecaster_the_figures_of_the_same_registered_one() -> None:
    registered = tsbench.run(
        method="origin",
        backbone="naive-last",
        dataset="demo",
        horizon=24,
        lookback=48,
        profile="quick",
        test_stride=3,
        baselines=False,
    )
    scores = tsbench.evaluate(MINE, tsbench.load_dataset("demo"), 24, lookback=48, stride=3)
    assert [scores.mse, scores.mae] == list(registered.loc[0, ["mse", "mae"]])


def test_evaluate_refuses_a_horizon_that_does_not_fit() -> None:
    with pytest.raises(TsbenchError, match="horizon 801 is longer than the test split"):
        tsbench.evaluate(MINE, tsbench.load_dataset("demo"), 801, lookback=48)


def test_run_suite_returns_the_cells_that_could_run(workplace: Path) -> None:
    suite = workplace / "mine.toml"
    suite.write_text(
        'title = "Mine"\ndatasets = ["demo"]\nhorizons = [12]\nlookback = 48\n'
        '[[rows]]\nmethod = "origin"\nbackbones = ["toy"]\n'
        '[[rows]]\nmethod = "origin"\nbackbones = ["toy"]\nlookback = 3300\n'
    )
    lines: list[str] = []
    table = tsbench.run_suite(
        str(suite), profile="quick", seed=[0, 1], baselines=False, progress=lines.append
    )
    assert list(zip(table["backbone"], table["lookback"], strict=True)) == [("toy", 48)]
    assert lines[0] == "mine: 2 cells: 0 done before, 1 to run, 1 missing"
    assert lines[1].startswith("1 missing: lookback 3300 is longer than the 3200 rows before the test split")
    with pytest.raises(TsbenchError, match="unknown dataset 'dmo'"):
        tsbench.run_suite(str(suite), only=["dmo"])

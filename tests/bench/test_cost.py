from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_series
import torch
import toy
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone, RowFile
from tsbench.bench.cost import ledger, methods, rates, work
from tsbench.bench.cost.estimate import Estimate, estimate
from tsbench.bench.cost.ledger import Amount
from tsbench.bench.cost.rates import Rates
from tsbench.bench.records import Record
from tsbench.bench.runner import Bench, run_cells
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, FLlmOptions, TsMemoryOptions
from tsbench.methods.task import Fitted
from tsbench.methods.ts_memory.teaching import train_windows
from tsbench.training.loop import TrainingConfig

MEMORY = TsMemoryOptions(plugmem="tiny")
CONTROL = TsMemoryOptions(plugmem="tiny", ablation="no-retrieval")


class Given(dict[tuple[object, ...], float]):
    """Rates that need no measuring: one second for each item of the kinds named, none for others."""

    def __init__(self, *counted: str):
        self.counted = counted

    def __contains__(self, kind: object) -> bool:
        return True

    def __getitem__(self, kind: tuple[object, ...]) -> float:
        return float(kind[0] in self.counted)


def cell(method: str = "origin", **fields: Any) -> CellSpec:
    shared = {"backbone": "toy", "dataset": "demo", "horizon": 24, "lookback": 48, "profile": "quick"}
    return CellSpec.model_validate(shared | {"method": method} | fields)


CELLS = [
    spec
    for horizon in (48, 24)
    for spec in (
        cell(horizon=horizon),
        cell("ts-memory", horizon=horizon, options=CONTROL),
        cell("ts-memory", horizon=horizon, options=MEMORY),
        cell("raft", horizon=horizon),
        cell("ts-rag", horizon=horizon),
    )
]


def settle(folder: Path, patch: pytest.MonkeyPatch) -> Bench:
    patch.setenv("TSBENCH_HOME", str(folder / "home"))
    patch.delenv("TSBENCH_MIRROR", raising=False)
    patch.delenv("TSBENCH_CACHE_GB", raising=False)
    toy.install(patch)
    return Bench(ResultsStore(folder / "results"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return settle(tmp_path, monkeypatch)


def planned(bench: Bench, *specs: CellSpec, counted: str = "") -> list[Estimate]:
    """Estimates whose seconds are the items of one kind of work."""
    return estimate(bench, specs, Rates(known=Given(counted)))


def total(estimates: list[Estimate], part: str) -> Amount:
    return sum((getattr(each.work, part) for each in estimates), start=Amount())


def ran(bench: Bench, *specs: CellSpec) -> list[Record]:
    outcomes = run_cells(bench, specs)
    assert all(isinstance(outcome, Record) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Record)]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Run:
    """Cells that were estimated, run, and estimated again with another store.

    Attributes:
        before: Estimates before the run.
        rows: (Window, channel) pairs that the backbone forecast, per cell.
        embedded: Windows whose embeddings were stored, per cell.
        steps: Training steps, per cell.
        filled: Bytes on the disk in the end.
        after: Estimates for another store afterwards.
    """

    before: list[Estimate]
    rows: list[int]
    embedded: list[int]
    steps: list[float]
    filled: int
    after: list[Estimate]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        bench = settle(folder, patch)
        before = planned(bench, *CELLS)
        predicted, embedded = Counter[CellSpec](), Counter[CellSpec]()
        predict, write = toy.Toy.predict, RowFile.write

        def counting_predict(self: toy.Toy, context: torch.Tensor, horizon: int) -> torch.Tensor:
            predicted[spec] += len(context)
            return predict(self, context, horizon)

        def counting_write(self: RowFile, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
            embedded[spec] += len(rows) if self.directory.name == "embeddings" else 0
            write(self, rows, values)

        patch.setattr(toy.Toy, "predict", counting_predict)
        patch.setattr(RowFile, "write", counting_write)
        steps = []
        for spec in CELLS:
            (record,) = ran(bench, spec)
            steps.append(record.metrics.get("steps_trained", 0))
        filled = sum(path.stat().st_blocks * 512 for path in files(folder) if path.suffix != ".lock")
        after = planned(Bench(ResultsStore(folder / "other")), *CELLS)
        return Run(
            before,
            [predicted[spec] for spec in CELLS],
            [embedded[spec] for spec in CELLS],
            steps,
            filled,
            after,
        )


def test_the_rows_and_steps_that_are_counted_are_those_of_the_run(run: Run, bench: Bench) -> None:
    channels = bench.dataset("demo").values.shape[1]
    works = [each.work for each in run.before if each.work]
    assert [work.forecasts.missing * channels for work in works] == run.rows
    assert [work.embeddings.missing for work in works] == run.embedded
    assert [work.steps for work in works] == run.steps
    assert [work.teachers.missing for work in works] == [0, 0, 1, 0, 0] * 2
    assert 0 < total(run.before, "forecasts").missing < total(run.before, "forecasts").needed


def test_the_disk_that_is_counted_is_what_the_run_fills(run: Run) -> None:
    assert sum(each.disk_mb for each in run.before) == pytest.approx(run.filled / 2**20, rel=0.2)


def test_ingredients_that_are_there_cost_nothing(run: Run) -> None:
    for part in ("forecasts", "embeddings", "teachers", "trainings"):
        amount = total(run.after, part)
        assert amount.needed > 0
        assert (amount.missing, amount.new_bytes) == (0, 0)
    assert [each.work.steps for each in run.after if each.work] == [0] * len(CELLS)


def test_a_stored_cell_costs_nothing(bench: Bench) -> None:
    ran(bench, cell())
    done, other = planned(bench, cell(), cell(horizon=12))
    assert (done.done, done.seconds, done.disk_mb, done.work) == (True, 0, 0, None)
    assert not other.done


def test_networks_of_backbones_are_counted_and_found_again(bench: Bench, tmp_path: Path, llama: str) -> None:
    pytest.importorskip("peft")
    shared = {"backbone": "flame-small", "test_stride": 100}
    loop = FLlmOptions(patch=12)
    cells = [
        cell("supervised", backbone="dlinear"),
        cell("lora", **shared),
        cell("flame", **shared),
        cell("f-llm", backbone="llama-2-7b", checkpoint=llama, f_llm=loop, test_stride=100),
    ]
    before = planned(bench, *cells)
    assert [each.unknown for each in before] == [""] * 4
    assert [each.work.trainings.missing for each in before if each.work] == [
        3,
        1,
        1,
        2,
    ]  # DLinear at three rates
    assert all(each.work.steps > 0 for each in before if each.work)
    ran(bench, *cells)
    after = planned(Bench(ResultsStore(tmp_path / "other")), *cells)
    assert total(after, "trainings").needed == 7
    assert total(after, "trainings").missing == 0


def test_shared_work_counts_for_the_first_cell(bench: Bench) -> None:
    first, second = planned(bench, cell("raft"), cell("raft", test_stride=1))
    assert first.work is not None
    assert second.work is not None
    assert second.work.forecasts.needed > first.work.forecasts.needed
    grids = [bench.task(each.spec).test_windows().starts for each in (first, second)]
    assert second.work.forecasts.missing == len(np.setdiff1d(grids[1], grids[0]))
    assert second.work.trainings.needed == 0


def test_a_cache_that_is_too_small_keeps_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSBENCH_CACHE_GB", "0")
    twice = planned(bench, cell(), cell(seed=1))
    assert [each.work.forecasts.missing == each.work.forecasts.needed for each in twice if each.work] == [
        True
    ] * 2
    assert total(twice, "forecasts").new_bytes == 0


def test_seconds_are_counted_work_times_rates(bench: Bench) -> None:
    (each,) = planned(bench, cell("ts-memory", options=MEMORY), counted="train")
    assert each.work is not None
    assert each.work.steps == toy.PROFILE.max_steps
    assert each.work.seconds == each.work.steps
    assert each.seconds >= each.work.seconds


def test_sampled_paths_are_counted_by_window(bench: Bench) -> None:
    spec = cell(backbone="toy-paths", samples=4)
    (each,) = planned(bench, spec, counted="paths")
    assert each.work is not None
    assert each.work.seconds == len(bench.task(spec).test_windows().starts)


def test_a_module_from_another_backbone_counts_what_its_donor_needs(bench: Bench) -> None:
    carried = cell("ts-memory", backbone="naive-seasonal", plugmem_from="toy", options=MEMORY)
    donor, fused = planned(bench, cell("ts-memory", options=MEMORY), carried)
    assert donor.work is not None
    assert fused.work is not None
    assert (donor.work.teachers.missing, donor.work.trainings.missing) == (1, 1)
    assert (fused.work.teachers, fused.work.trainings) == (Amount(1), Amount(1))
    assert fused.work.forecasts.missing > 0


def test_planning_leaves_no_file_and_no_cell(bench: Bench, tmp_path: Path) -> None:
    found = estimate(bench, CELLS[:5])
    assert files(tmp_path) == []
    assert all(0 < each.seconds < 60 and each.peak_mb > 0 for each in found)


def test_a_collection_is_counted_by_its_series(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = short_series.seasonal(40, 30, 12)
    short_series.install(monkeypatch, tmp_path / "home", {"M3-Monthly": series})
    spec = cell(backbone="naive-last", dataset="M3-Monthly", horizon=18, lookback=10_000, test_stride=2)
    (each,) = planned(bench, spec, counted="forecast series")
    assert each.work is not None
    assert each.work.seconds == 20
    (measured,) = estimate(bench, [spec])
    assert 0 < measured.seconds < 60


def test_the_work_of_a_method_from_another_package_is_not_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {name: count for name, count in methods.METHODS.items() if name != "raft"}
    monkeypatch.setattr("tsbench.bench.cost.estimate.METHODS", without)
    (each,) = planned(bench, cell("raft"))
    assert each.unknown == "method 'raft' comes from another package, whose work is not known"
    assert np.isnan(each.seconds)


class Measured(Rates):
    """Rates that note each kind of work that is asked for and measure none."""

    def of(self, kind: tuple[object, ...], measure: Callable[[], float]) -> float:
        self.known[kind] = 0.0
        return 0.0


def test_a_backbone_is_measured_on_a_whole_batch_however_little_is_missing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    first_contexts = work.first_contexts

    def noting(frozen: FrozenBackbone, starts: NDArray[np.int64]) -> torch.Tensor:
        context = first_contexts(frozen, starts)
        sizes.append(len(context))
        return context

    monkeypatch.setattr(work, "first_contexts", noting)
    planned(bench, cell(), cell(seed=1))
    assert len(set(sizes)) == 1
    assert len(sizes) == 2


def test_rates_of_one_data_set_are_not_those_of_another(bench: Bench) -> None:
    demo = bench.dataset("demo")
    own = {name: replace(demo, name=name) for name in ("one", "two")}
    kinds = []
    for name in ("one", "two"):
        known = Measured()
        spec = cell("supervised", backbone="dlinear", dataset=name)
        estimate(Bench(bench.store, own_data=own), [spec], known)
        kinds.append({kind for kind in known.known if kind[0] in ("train", "validate", "evaluate")})
    assert {kind[0] for kind in kinds[0]} == {"train", "validate", "evaluate"}
    assert not kinds[0] & kinds[1]


def test_zero_shot_weights_that_stay_are_scored_with_the_cached_forecasts(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    useless = partial(methods._trained, lambda task, frozen: Fitted(frozen.backbone, {}))
    monkeypatch.setitem(methods.METHODS, "flame", useless)
    (each,) = estimate(bench, [cell("flame")])
    assert each.work is not None
    assert each.work.forecasts.missing > 0
    assert files(tmp_path) == []


def test_allocated_bytes_are_those_of_all_blocks_touched() -> None:
    random = np.random.default_rng(0)
    for item in (4, 700, 4096, 10_000):
        rows = np.unique(random.integers(0, 500, 60))
        touched = {at // 4096 for row in rows for at in range(row * item, (row + 1) * item)}
        assert ledger._row_bytes(rows, item) == 4096 * len(touched)


def test_one_channel_of_a_task_has_the_windows_of_all(bench: Bench) -> None:
    task = bench.task(cell("raft"))
    alone = rates.one_channel(task)
    assert alone.channels == 1
    for one, every in (
        (train_windows(alone).known, train_windows(task).known),
        (
            alone.windows("val", alone.profile.max_val_values),
            task.windows("val", task.profile.max_val_values),
        ),
    ):
        np.testing.assert_array_equal(one.starts, every.starts)


@pytest.mark.parametrize(
    ("durations", "expected", "calls"), [((0.5, 0.1, 0.3, 0.2), 0.2, 4), ((5.0, 0.1), 5.0, 1)]
)
def test_short_work_is_timed_warm_and_long_work_once(
    monkeypatch: pytest.MonkeyPatch, durations: tuple[float, ...], expected: float, calls: int
) -> None:
    now, made = 0.0, 0

    def work() -> None:
        nonlocal now, made
        now, made = now + durations[made], made + 1

    monkeypatch.setattr(rates.time, "perf_counter", lambda: now)
    assert rates.seconds_of(work) == pytest.approx(expected)
    assert made == calls


def test_measuring_a_training_step_leaves_the_weights_as_they_were() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seconds = rates.step_seconds(
        model,
        batches=lambda step: torch.ones(2, 3),
        loss_fn=lambda network, batch: network(batch).square().mean(),
        config=TrainingConfig(max_steps=100, eval_every=10, patience=3),
    )
    assert seconds > 0
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)

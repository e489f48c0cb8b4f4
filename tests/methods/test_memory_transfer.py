"""TS-Memory's module trained for another backbone, on other data sets, or on a pool of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsbench import registry
from tsbench.backbones.base import BackboneOptions
from tsbench.bench.checks import check
from tsbench.bench.grid import cells
from tsbench.bench.runner import Bench, build_teachers, run_cell, with_baselines
from tsbench.bench.store import ResultsStore
from tsbench.config import PROFILES, CellSpec, TsMemoryOptions
from tsbench.data.dataset import Dataset
from tsbench.data.splits import SplitRule
from tsbench.data.windows import gather_contexts, gather_targets
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import FusedForecaster
from tsbench.methods.pool import pooled_key, split_numbers
from tsbench.methods.task import Fitted
from tsbench.methods.ts_memory import distillation
from tsbench.methods.ts_memory.distillation import training_pairs
from tsbench.methods.ts_memory.method import fit
from tsbench.methods.ts_memory.teaching import load_or_build_teacher, train_windows
from tsbench.training.loop import ShuffledBatches

ROWS, LOOKBACK, HORIZON = 900, 48, 12
VAL, TEST = 630, 720  # first rows of the splits
OPTIONS = TsMemoryOptions(plugmem="tiny")
CONTROL = TsMemoryOptions(plugmem="tiny", ablation="no-retrieval")
CHANNELS = {"east": 1, "north": 2, "south": 3}
PROFILE = toy.PROFILE.model_copy(
    update={"max_train_pairs": 90, "max_val_values": 600, "max_steps": 2, "eval_every": 1, "batch_size": 8}
)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class HalfDay(toy.Toy):
    """Repeats the last half day."""


@dataclass(frozen=True)
class Thirds(toy.Toy):
    """Has other quantile levels."""

    quantile_levels: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75)


def load_half_day(options: BackboneOptions) -> HalfDay:
    return HalfDay(options.name, season=12)


def load_thirds(options: BackboneOptions) -> Thirds:
    return Thirds(options.name, season=24)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TSBENCH_CACHE_GB", raising=False)
    toy.install(monkeypatch)
    others = (
        registry.Entry("half-day", "test_memory_transfer:load_half_day", "", aliases=("half",)),
        registry.Entry("thirds", "test_memory_transfer:load_thirds", ""),
    )
    monkeypatch.setitem(registry.BUILT_IN, "backbone", (*registry.BUILT_IN["backbone"], *others))
    monkeypatch.setitem(PROFILES, "quick", PROFILE)


def dataset(name: str, change: Callable[[Array], None] = lambda values: None) -> Dataset:
    """Daily seasons on slow walks, other ones for every name; `change` leaves the checksum as it is."""
    channels = CHANNELS[name]
    rng = np.random.default_rng(channels)
    seasons = np.sin(2 * np.pi * np.arange(ROWS)[:, None] / 24 + np.arange(channels))
    values = 5 * seasons + rng.standard_normal((ROWS, channels)) + rng.standard_normal((ROWS, 1)).cumsum(0)
    change(values)
    times = np.datetime64("2020-01-01", "s") + np.arange(ROWS) * np.timedelta64(1, "h")
    split, names = SplitRule("ratio", 0.7, 0.1, 0.2), tuple(map(str, range(channels)))
    return Dataset(name, values, times, names, "1h", 24, split, (HORIZON,), str(channels) * 64)


def make_bench(folder: Path, **changes: Callable[[Array], None]) -> Bench:
    """A bench that knows the data sets east, north and south; artefacts lie in TSBENCH_HOME."""
    own = {name: dataset(name, change=changes.get(name, lambda values: None)) for name in CHANNELS}
    return Bench(ResultsStore(folder / "results"), own_data=own, progress=[].append)  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


def lines(bench: Bench) -> list[str]:
    return bench.progress.__self__  # type: ignore[attr-defined, no-any-return]


def cell(**fields: Any) -> CellSpec:
    shared = {
        "method": "ts-memory",
        "backbone": "toy",
        "dataset": "north",
        "horizon": HORIZON,
        "lookback": LOOKBACK,
        "profile": "quick",
        "options": OPTIONS,
    }
    return CellSpec.model_validate(shared | fields)


def fit_cell(bench: Bench, spec: CellSpec) -> Fitted:
    task = bench.task(spec)
    return fit(task, bench.frozen(spec, task))


def weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    assert isinstance(fitted.forecaster, FusedForecaster)
    return fitted.forecaster.companion.network.state_dict()  # type: ignore[attr-defined, no-any-return]


def same_weights(one: Fitted, other: Fitted) -> bool:
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def contexts() -> torch.Tensor:
    return torch.randn(5, LOOKBACK, generator=torch.Generator().manual_seed(3)).cumsum(1)


@pytest.mark.parametrize(
    ("itself", "options"), [({"plugmem_from": "toy"}, CONTROL), ({"train_dataset": "north"}, OPTIONS)]
)
def test_a_module_transferred_to_where_it_is_from_makes_the_plain_forecasts(
    bench: Bench, itself: dict[str, str], options: TsMemoryOptions
) -> None:
    plain = run_cell(bench, cell(options=options))
    assert any(line.startswith("plugmem: step") for line in lines(bench))
    lines(bench).clear()
    again = run_cell(bench, cell(options=options, **itself))
    assert again.key != plain.key
    assert again.metrics == plain.metrics
    assert again.alpha == plain.alpha
    assert not any(line.startswith(("plugmem: step", "teacher: embedding")) for line in lines(bench))
    if options is OPTIONS:
        assert "teacher: already built" in lines(bench)


@pytest.mark.parametrize("own", [{"backbone": "half-day"}, {"dataset": "south"}])
def test_what_the_sources_own_cell_learned_is_used_again_and_fused_with_another_backbone(
    bench: Bench, own: dict[str, str]
) -> None:
    donor = fit_cell(bench, cell(**own))
    lines(bench).clear()
    transfer = {"plugmem_from": own.get("backbone"), "train_dataset": own.get("dataset")}
    spec = cell(**transfer)
    build_teachers(bench, [spec])
    fitted = fit_cell(bench, spec)
    assert lines(bench).count("teacher: already built") == 2
    assert not any(line.startswith(("plugmem: step", "teacher: embedding")) for line in lines(bench))
    assert same_weights(fitted, donor)
    assert not same_weights(fitted, fit_cell(bench, cell()))

    forecaster, curve = fitted.forecaster, fitted.validation_curve
    assert isinstance(forecaster, FusedForecaster)
    assert curve is not None
    assert forecaster.base is bench.backbone(cell())
    assert forecaster.alpha == curve.best("crps")
    base = toy.load(BackboneOptions("toy")).predict(contexts(), HORIZON)
    memory = forecaster.companion.predict(contexts(), HORIZON)
    fused = (1 - forecaster.alpha) * base + forecaster.alpha * memory
    torch.testing.assert_close(forecaster.predict(contexts(), HORIZON), fused)


def test_the_fusion_weight_sees_the_validation_rows_of_the_target_and_not_those_of_the_source(
    tmp_path: Path,
) -> None:
    def noise(values: Array) -> None:
        values[VAL:TEST] += np.random.default_rng(9).standard_normal((TEST - VAL, 1))

    spec = cell(train_dataset="south")
    before, source, target = (
        fit_cell(make_bench(tmp_path, **changes), spec)  # trained once: the checksums stay
        for changes in ({}, {"south": noise}, {"north": noise})
    )
    assert same_weights(source, before)
    assert same_weights(target, before)
    for name, curve in vars(before.validation_curve).items():
        np.testing.assert_array_equal(getattr(source.validation_curve, name), curve)
    assert before.validation_curve is not None
    assert target.validation_curve is not None
    assert (target.validation_curve.crps != before.validation_curve.crps).all()


@pytest.mark.parametrize(
    ("train_dataset", "options"), [("south", CONTROL), ("south", OPTIONS), ("east+south", OPTIONS)]
)
def test_when_trained_on_other_data_then_the_targets_rows_do_not_move_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train_dataset: str, options: TsMemoryOptions
) -> None:
    def noise(values: Array) -> None:
        values[:] = np.random.default_rng(9).standard_normal(values.shape)

    spec = cell(train_dataset=train_dataset, options=options)
    before = fit_cell(make_bench(tmp_path), spec)
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "other"))
    after = fit_cell(make_bench(tmp_path, north=noise), spec)
    assert same_weights(after, before)
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "third"))
    assert not same_weights(fit_cell(make_bench(tmp_path, south=noise), spec), before)


@pytest.mark.parametrize("transfer", [{"train_dataset": "east+north+south"}, {"plugmem_from": "half-day"}])
def test_no_test_row_of_target_or_source_moves_a_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: dict[str, str]
) -> None:
    def noise(values: Array) -> None:
        values[TEST:] = 1e3 * np.random.default_rng(9).standard_normal(values[TEST:].shape)

    before = fit_cell(make_bench(tmp_path), cell(**transfer))
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "other"))
    after = fit_cell(make_bench(tmp_path, east=noise, north=noise, south=noise), cell(**transfer))
    assert after.diagnostics == before.diagnostics
    first, second = after.forecaster, before.forecaster
    assert isinstance(first, FusedForecaster)
    assert isinstance(second, FusedForecaster)
    assert first.alpha == second.alpha
    assert torch.equal(first.predict(contexts(), HORIZON), second.predict(contexts(), HORIZON))


def test_a_pool_takes_an_equal_share_of_every_bound_from_each_source(bench: Bench) -> None:
    spec = cell(train_dataset="east+north+south")
    fitted = fit_cell(bench, spec)
    sources = bench.task(spec).sources
    assert [source.task.dataset.name for source in sources] == ["east", "north", "south"]
    pairs = training_pairs(sources)
    assert all(PROFILE.max_train_pairs / 6 < count <= PROFILE.max_train_pairs / 3 for count in pairs)
    assert fitted.diagnostics["train_pairs"] == sum(pairs)
    for source in sources:
        task, rows = source.task, source.task.dataset.values
        train = rows[slice(*task.borders.train)]
        np.testing.assert_allclose(task.scaled, (rows - train.mean(0)) / train.std(0), rtol=1e-4, atol=1e-4)
        known = len(train_windows(task).known.starts) * task.channels
        assert known <= PROFILE.max_knowledge_rows / 3
        stop = len(task.windows("val", task.profile.max_stop_values).starts) - 1  # a grid may hold one more
        assert stop * task.channels * HORIZON <= PROFILE.max_stop_values / 3


def test_an_epoch_of_a_pool_is_every_pair_of_every_source_once_with_its_own_base_and_teacher(
    bench: Bench,
) -> None:
    sources = bench.task(cell(train_dataset="east+north", plugmem_from="half-day")).sources
    teachers = [load_or_build_teacher(source.task, source.frozen, OPTIONS) for source in sources]
    order = ShuffledBatches(sum(training_pairs(sources)), 7, seed=0)
    read = distillation._pair_batches(sources, teachers, order)
    batches = [read(step) for step in range(order.steps_per_epoch)]

    expected = []
    for source, teacher in zip(sources, teachers, strict=True):
        starts = train_windows(source.task).queries.starts
        context = gather_contexts(source.task.scaled, starts, LOOKBACK).reshape(-1, LOOKBACK)
        base = load_half_day(BackboneOptions("half-day")).predict(torch.from_numpy(context), HORIZON)
        columns = (
            context,
            gather_targets(source.task.scaled, starts, HORIZON),
            base.numpy(),
            teacher.quantiles,
            teacher.confidence,
        )
        expected.append(np.concatenate([each.reshape(len(context), -1) for each in columns], axis=1))
    drawn = [
        np.concatenate(
            [column.reshape(len(batch.context), -1).numpy() for column in vars(batch).values()], axis=1
        )
        for batch in batches
    ]
    assert np.isin([len(part) for part in drawn[:-1]], 7).all()
    np.testing.assert_array_equal(
        rows_in_order(np.concatenate(drawn)), rows_in_order(np.concatenate(expected))
    )


def rows_in_order(table: NDArray[np.float32]) -> NDArray[np.float32]:
    return table[np.lexsort(table.T[::-1])]


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_numbers_that_run_through_all_parts_are_split_as_a_loop_would(sizes: list[int], seed: int) -> None:
    total = sum(sizes)
    numbers = np.random.default_rng(seed).permutation(total)[: max(1, total // 2)]
    owners = [(part, item) for part, size in enumerate(sizes) for item in range(size)]
    expected: list[list[int]] = [[] for _ in sizes]
    for number in numbers:
        part, item = owners[number]
        expected[part].append(item)
    assert [list(part) for part in split_numbers(numbers, sizes)] == expected


def test_a_pool_has_a_key_of_its_own() -> None:
    assert len({pooled_key(["a"]), pooled_key(["b"]), pooled_key(["a", "b"]), pooled_key(["b", "a"])}) == 4


def test_the_checksums_of_the_sources_are_part_of_the_cells_key(bench: Bench) -> None:
    spec = cell(train_dataset="east+south")
    before = bench.key(spec)
    for name, moves in (("east", True), ("south", True)):
        changed = dict(bench.own_data)
        changed[name] = replace(changed[name], sha256="f" * 64)
        assert (Bench(bench.store, own_data=changed).key(spec) != before) == moves
    plain = bench.key(cell())
    changed = dict(bench.own_data) | {"south": replace(bench.own_data["south"], sha256="f" * 64)}
    assert Bench(bench.store, own_data=changed).key(cell()) == plain


def test_the_control_beside_a_transferred_cell_is_transferred_likewise() -> None:
    transfer = {"train_dataset": "east+south", "plugmem_from": "half-day"}
    rows = with_baselines([cell(**transfer)])
    assert rows[-2:] == [cell(options=CONTROL, **transfer), cell(**transfer)]
    assert all(not row.sources() for row in rows[:-2])
    assert rows[-3] == cell(method="origin", options=None)


def test_a_target_too_short_to_train_on_can_be_forecast_with_what_was_learned_elsewhere(
    bench: Bench,
) -> None:
    whole, split = dataset("north"), SplitRule("rows", 56, 14, 20)  # to train on takes 48 + 12 rows
    bench.own_data["north"] = replace(
        whole, values=whole.values[:90], timestamps=whole.timestamps[:90], split=split
    )
    check(bench, with_baselines([cell(train_dataset="south", test_stride=1)]))
    record = run_cell(bench, cell(train_dataset="south", test_stride=1))
    assert record.windows == 20 - HORIZON + 1
    with pytest.raises(TsbenchError, match="need 60 rows, but the train split has 56"):
        check(bench, [cell()])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (cell(plugmem_from="naive-last"), "needs a backbone with an encoder; naive-last has none"),
        (cell(plugmem_from="dlinear"), "'dlinear' is an untrained architecture"),
        (cell(plugmem_from="smollm2"), "'smollm2' is a language model"),
        (
            cell(plugmem_from="thirds"),
            "from thirds has other quantile levels than toy; use another --plugmem",
        ),
        (
            cell(train_dataset="south", dataset="east", lookback=625),
            "south: lookback 625 and horizon 12 need",
        ),
        (cell(train_dataset="east+south", train_stride=7), "--train-stride 7 is not on the knowledge base's"),
    ],
)
def test_a_transfer_that_cannot_work_is_found_before_work(bench: Bench, spec: CellSpec, message: str) -> None:
    with pytest.raises(TsbenchError, match=message):
        check(bench, [spec])
    assert lines(bench) == []


def test_a_module_with_other_levels_is_refused_where_it_would_be_fused(bench: Bench) -> None:
    with pytest.raises(TsbenchError, match="from thirds has other quantile levels than toy"):
        fit_cell(bench, cell(plugmem_from="thirds"))


def ask(method: str = "ts-memory", **changes: Any) -> list[CellSpec]:
    asked = {"method": method, "backbone": "toy", "datasets": ["ETTh1"], "seeds": [0], "variants": (OPTIONS,)}
    return cells(**asked | changes)


def test_names_are_resolved_put_in_order_and_left_out_where_nothing_is_transferred() -> None:
    (spec,) = ask(train_datasets=["weather", "ETTh2", "ETTh2"], plugmem_from="half")
    assert (spec.train_dataset, spec.plugmem_from) == ("ETTh2+Weather", "half-day")
    pooled = ask(train_datasets=["ETT"], datasets=["ETT"])
    assert {spec.train_dataset for spec in pooled} == {"ETTh1+ETTh2+ETTm1+ETTm2"}
    assert ask(train_datasets=["ETTh1"], plugmem_from="toy") == ask()
    (other,) = ask(plugmem_from="toy", checkpoint="tuned")  # its registered weights are another backbone
    assert other.plugmem_from == "toy"
    (lora,) = ask("lora", train_datasets=["ETTh2"], variants=(None,))
    assert lora.train_dataset == "ETTh2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plugmem_from": "half-dya"}, "unknown backbone 'half-dya'; did you mean half-day"),
        ({"train_datasets": ["ETTh3"]}, "unknown dataset 'ETTh3'; did you mean ETTh1"),
        ({"train_datasets": ["M4-Hourly"]}, "M4-Hourly is a collection of short series"),
        ({"train_datasets": ["ETTh2"], "method": "raft", "variants": (None,)}, "--train-dataset is for"),
        ({"train_datasets": ["ETTh2"], "datasets": ["M3-Other"]}, "--train-dataset is for"),
        ({"plugmem_from": "half-day", "method": "lora"}, "--plugmem-from belongs to --method ts-memory"),
    ],
)
def test_a_transfer_that_does_not_exist_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TsbenchError, match=message):
        ask(**changes)

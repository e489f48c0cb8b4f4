import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.bench.columns import COLUMNS, certificate, variant
from tsbench.bench.records import (
    Details,
    Failure,
    FusionCurves,
    Provenance,
    Record,
    SampleForecasts,
    WindowScores,
)
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, TeacherOptions, TsMemoryOptions
from tsbench.errors import TsbenchError

PROVENANCE = Provenance(
    data_sha256="d" * 64,
    backbone_identity="fracast-0123-median-v1",
    code_version="0.1.0+abc",
    versions={"torch": "2.6.0", "numpy": "2.1"},
    device="Some CPU",
    threads=2,
    created="2026-01-02T03:04:05Z",
    wall_s=12.5,
    peak_rss_mb=512.0,
)


def memory_spec(seed: int = 0, **options: object) -> CellSpec:
    return CellSpec(
        method="ts-memory",
        backbone="fracast",
        dataset="ETTh1",
        horizon=96,
        seed=seed,
        options=TsMemoryOptions.model_validate(options),
    )


def make_record(spec: CellSpec, windows: int = 5, details: bool = True) -> Record:
    rng = np.random.default_rng(spec.seed)
    fused = spec.options is not None
    grid = np.linspace(0, 1, 21)
    metrics = ("mse", "mae", "crps")
    return Record(
        key=spec.content_hash("data"),
        spec=spec,
        metrics={"mse": float(rng.random()), "mae": 1 / 3, "crps": float("nan")},
        costs={"seconds_score": float(rng.random()), "rows_score": 35.0} if fused else {},
        windows=windows,
        windows_total=4 * windows,
        test_stride=4,
        levels=(0.1, 0.5, 0.9),
        alpha=0.35 if fused else None,
        provenance=PROVENANCE,
        window_scores=WindowScores(
            np.arange(windows) * 4, *(rng.random(windows, dtype=np.float32) for _ in range(4))
        )
        if details
        else None,
        curves=FusionCurves(grid, {m: rng.random(21) for m in metrics}, {m: rng.random(21) for m in metrics})
        if details and fused
        else None,
        details=make_details(rng, (0.1, 0.5, 0.9) if fused else ()) if details else None,
    )


def make_details(rng: np.random.Generator, levels: tuple[float, ...]) -> Details:
    pairs, horizon = (4, 3), 7
    return Details(
        *(rng.random(horizon, dtype=np.float32) for _ in range(4)),
        levels=np.array(levels),
        below=rng.random(len(levels)),
        samples=SampleForecasts(
            start=np.arange(4),
            time=np.datetime64("2016-07-01T00:15:00") + np.arange(4).astype("timedelta64[s]"),
            channels=("HUFL", "Straße, 2", ""),
            context=rng.random((*pairs, 14), dtype=np.float32),
            target=rng.random((*pairs, horizon), dtype=np.float32),
            forecast=rng.random((*pairs, max(1, len(levels)), horizon), dtype=np.float32),
        ),
    )


def assert_same(found: Record | None, expected: Record) -> None:
    assert found is not None
    bare = {"metrics": {}, "window_scores": None, "curves": None, "details": None}
    assert vars(replace(found, **bare)) == vars(replace(expected, **bare))
    assert list(found.metrics) == list(expected.metrics)
    np.testing.assert_array_equal(list(found.metrics.values()), list(expected.metrics.values()))
    assert (found.window_scores is None) == (expected.window_scores is None)
    if found.window_scores and expected.window_scores:
        for name, array in vars(expected.window_scores).items():
            stored = getattr(found.window_scores, name)
            assert stored.dtype == array.dtype
            np.testing.assert_array_equal(stored, array)
    assert (found.curves is None) == (expected.curves is None)
    if found.curves and expected.curves:
        np.testing.assert_array_equal(found.curves.alpha, expected.curves.alpha)
        for split in ("val", "test"):
            stored, wanted = getattr(found.curves, split), getattr(expected.curves, split)
            assert list(stored) == list(wanted)
            for name in wanted:
                np.testing.assert_array_equal(stored[name], wanted[name])
    assert (found.details is None) == (expected.details is None)
    if found.details and expected.details:
        stored, wanted = (vars(d) | vars(d.samples) for d in (found.details, expected.details))
        assert stored.pop("channels") == wanted.pop("channels")
        for name in wanted.keys() - {"samples"}:
            assert stored[name].dtype == wanted[name].dtype, name
            np.testing.assert_array_equal(stored[name], wanted[name], err_msg=name, strict=True)


SPECS = [
    CellSpec(
        method="origin", backbone="naive-last", dataset="ILI", horizon=24, lookback=104, profile="quick"
    ),
    CellSpec(method="origin", backbone="fracast", dataset="csv-my sales [2024]", horizon=7, rollout="expand"),
    CellSpec(
        method="lora", backbone="own/model", dataset="demo", horizon=1, checkpoint="org/m", drop_last=32
    ),
    memory_spec(),
    memory_spec(3, ablation="no-gate", alpha_policy="oracle", teacher={"exclusion": "self"}),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.method}-{spec.dataset}")
def test_a_saved_record_comes_back_equal(spec: CellSpec, tmp_path: Path) -> None:
    store = ResultsStore(tmp_path / "results")
    record = make_record(spec)
    path = store.save(record)
    assert path.is_file()
    assert path.parent.parent == tmp_path / "results" / "records"
    assert_same(store.load(record.key), record)
    (listed,) = store.records()
    assert_same(listed, replace(record, window_scores=None, curves=None, details=None))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    metrics=st.dictionaries(st.text("abcdef_", min_size=7), st.floats(), min_size=1, max_size=5),
    levels=st.lists(st.floats(0.01, 0.99), unique=True, max_size=4).map(lambda found: tuple(sorted(found))),
    versions=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    alpha=st.none() | st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_any_value_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    metrics: dict[str, float],
    levels: tuple[float, ...],
    versions: dict[str, str],
    alpha: float | None,
    seed: int,
) -> None:
    store = ResultsStore(tmp_path_factory.mktemp("results"))
    record = replace(
        make_record(memory_spec(seed), details=False),
        metrics=metrics,
        levels=levels,
        alpha=alpha,
        provenance=replace(PROVENANCE, versions=versions),
    )
    store.save(record)
    assert_same(store.load(record.key), record)


def test_a_record_file_has_one_row_per_metric_and_cost_in_the_documented_columns(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    spec = memory_spec(2, ablation="no-gate", teacher={"exclusion": "self", "pool": 30})
    path = store.save(make_record(spec))
    frame = pl.read_parquet(path)
    assert frame.schema == {name: column.dtype for name, column in COLUMNS.items()}
    assert frame["metric"].to_list() == ["mse", "mae", "crps", "seconds_score", "rows_score"]
    row = frame.row(1, named=True)
    assert (row["value"], row["horizon"], row["seed"], row["alpha_policy"]) == (1 / 3, 96, 2, "val")
    assert row["variant"] == "exclusion=self;pool=30;ablation=no-gate"
    assert CellSpec.model_validate_json(row["spec"]) == spec
    assert all(column.meaning for column in COLUMNS.values())


def test_the_certificate_fills_every_column_of_a_ts_memory_cell() -> None:
    spec = memory_spec().model_copy(update={"drop_last": 32, "checkpoint": "org/model"})
    row = certificate(make_record(spec))
    assert [name for name, value in row.items() if value is None] == []
    assert [*row] == [name for name in COLUMNS if name not in ("metric", "value")]


def test_variant_is_empty_for_defaults_and_for_methods_without_options() -> None:
    assert variant(memory_spec()) == ""
    assert variant(SPECS[0]) == ""
    assert variant(memory_spec(teacher=TeacherOptions(exclusion="window"))) == "exclusion=window"


def test_the_table_joins_all_cells_and_is_empty_without_any(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    assert store.table().columns == list(COLUMNS)
    assert store.table().is_empty()
    for spec in SPECS:
        store.save(make_record(spec))
    table = store.table()
    assert table.height == sum(len(each.metrics | each.costs) for each in map(make_record, SPECS))
    assert table["key"].n_unique() == len(SPECS)


def test_an_unknown_key_and_a_missing_folder_give_none(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path / "none")
    assert store.load("0" * 64) is None
    assert store.records() == []
    assert store.failures() == []


def test_keys_that_share_twelve_digits_are_told_apart(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    record = make_record(memory_spec(), details=False)
    store.save(record)
    assert store.load(record.key[:12] + "0" * 52) is None


@pytest.mark.parametrize("files_before_the_crash", [0, 1, 2, 3])
def test_when_save_is_cut_off_the_cell_is_not_done(
    files_before_the_crash: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultsStore(tmp_path)
    record = make_record(memory_spec())
    written: list[int] = []

    def fsync_until_the_crash(handle: int) -> None:
        if len(written) == files_before_the_crash:
            raise KeyboardInterrupt
        written.append(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync_until_the_crash)
        with pytest.raises(KeyboardInterrupt):
            store.save(record)
    assert store.load(record.key) is None
    assert store.records() == []
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == files_before_the_crash
    store.save(record)
    assert_same(store.load(record.key), record)


def test_when_saving_again_is_cut_off_the_old_record_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultsStore(tmp_path)
    record = make_record(memory_spec(), details=False)
    store.save(record)

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(TsbenchError, match="No space left on device; free some space"):
            store.save(replace(record, metrics={"mse": 9.0}))
    assert_same(store.load(record.key), record)


@pytest.mark.parametrize("kind", ["records", "windows", "curves", "details"])
@pytest.mark.parametrize("content", [b"", b"not parquet", None], ids=["empty", "other", "cut"])
def test_a_damaged_file_is_named_with_its_remedy(kind: str, content: bytes | None, tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    record = make_record(memory_spec())
    store.save(record)
    (path,) = (tmp_path / kind).glob("*/*.parquet")
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(TsbenchError, match=r"(?s)^cannot read .*; delete it and run again$") as caught:
        store.load(record.key)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    path.unlink()
    assert (store.load(record.key) is None) == (kind == "records")


def test_a_record_made_before_there_were_details_has_none(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    record = make_record(memory_spec())
    store.save(record)
    (path,) = tmp_path.glob("details/*/*.parquet")
    path.unlink()
    assert_same(store.load(record.key), replace(record, details=None))


def test_details_of_other_shapes_than_their_own_count_as_damaged(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    record = make_record(memory_spec())
    store.save(record)
    (path,) = tmp_path.glob("details/*/*.parquet")
    frame = pl.read_parquet(path)
    for damaged in (frame.clear(), frame.drop("below"), frame.with_columns(pl.col("target").list.head(5))):
        damaged.write_parquet(path)
        with pytest.raises(TsbenchError, match="delete it and run again"):
            store.load(record.key)


def test_a_record_with_no_rows_or_of_another_schema_counts_as_damaged(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    path = store.save(make_record(memory_spec()))
    frame = pl.read_parquet(path)
    for damaged in (frame.clear(), frame.drop("levels"), frame.with_columns(spec=pl.lit("{}"))):
        damaged.write_parquet(path)
        with pytest.raises(TsbenchError, match="delete it and run again"):
            store.records()


def _save_seeds(root: Path, seeds: range) -> None:
    for seed in seeds:
        ResultsStore(root).save(make_record(memory_spec(seed)))


def test_two_processes_save_different_cells_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    jobs = [
        context.Process(target=_save_seeds, args=(tmp_path, seeds)) for seeds in (range(15), range(10, 25))
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    store = ResultsStore(tmp_path)
    assert sorted(record.spec.seed for record in store.records()) == list(range(25))
    for seed in range(25):
        expected = make_record(memory_spec(seed))
        assert_same(store.load(expected.key), expected)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_failure_is_kept_until_the_cell_succeeds(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    spec = memory_spec()
    failure = Failure(spec.content_hash("data"), spec, "out of memory", "Traceback ...")
    other = Failure("f" * 64, SPECS[0], "lookback too short")
    store.save_failure(other)
    assert store.save_failure(failure) == tmp_path / "failures" / f"{failure.key}.json"
    assert store.failures() == sorted([failure, other], key=lambda failed: failed.key)
    store.save(make_record(spec))
    assert store.failures() == [other]


def test_a_damaged_failure_is_named(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    store.save_failure(Failure("f" * 64, SPECS[0], "error")).write_text("{}")
    with pytest.raises(TsbenchError, match=r"ffff\.json .*delete it"):
        store.failures()


def test_check_writable_fails_early_and_leaves_nothing(tmp_path: Path) -> None:
    ResultsStore(tmp_path / "new").check_writable()
    assert not list((tmp_path / "new").rglob("*.*"))
    (tmp_path / "file").touch()
    with pytest.raises(TsbenchError, match="cannot write"):
        ResultsStore(tmp_path / "file").check_writable()


def test_metrics_that_would_collide_with_a_column_are_refused(tmp_path: Path) -> None:
    record = make_record(memory_spec())
    for metrics in ({}, {"mse": 1.0, "alpha": 0.5}):
        with pytest.raises(ValueError, match="not metrics of a record"):
            ResultsStore(tmp_path).save(replace(record, metrics=metrics))


def test_a_cell_is_small(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    store.save(make_record(memory_spec()))
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.parquet")]
    assert len(sizes) == 4
    assert max(sizes) < 12_000


def test_a_record_of_an_older_protocol_keeps_its_number(tmp_path: Path) -> None:
    record = make_record(memory_spec())
    older = replace(record, provenance=replace(record.provenance, protocol=0))
    store = ResultsStore(tmp_path)
    store.save(older)
    (found,) = store.records()
    assert found.provenance.protocol == 0
    assert certificate(found)["protocol"] == 0

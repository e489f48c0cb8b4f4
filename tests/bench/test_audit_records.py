from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from tsbench.bench.audit import record as audits
from tsbench.bench.audit.findings import Audit, Finding, Ledger
from tsbench.bench.audit.record import audit_record
from tsbench.bench.audit.stored import audit_results
from tsbench.bench.audit.teachers import audit_teachers
from tsbench.bench.records import FusionCurves, Record
from tsbench.bench.runner import Bench, run_cell
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, TeacherOptions, TsMemoryOptions
from tsbench.data.catalog import catalogue
from tsbench.data.dataset import Dataset
from tsbench.data.load import load_dataset, source_sha256
from tsbench.errors import TsbenchError
from tsbench.methods.ts_memory.teacher import Teacher, write_card

H, L = 24, 48


def cell(method: str = "origin", options: TsMemoryOptions | None = None, **fields: Any) -> CellSpec:
    shared = {"backbone": "toy", "dataset": "demo", "horizon": H, "lookback": L, "profile": "quick"}
    return CellSpec.model_validate(shared | {"method": method, "options": options} | fields)


def memory(**options: Any) -> CellSpec:
    return cell("ts-memory", TsMemoryOptions.model_validate({"plugmem": "tiny"} | options))


@pytest.fixture(scope="module")
def demo() -> Dataset:
    return load_dataset("demo")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Cells that were really run, in a module's own TSBENCH_HOME."""
    folder = tmp_path_factory.mktemp("audit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSBENCH_HOME", str(folder / "home"))
        patch.delenv("TSBENCH_MIRROR", raising=False)
        toy.install(patch)
        yield Bench(ResultsStore(folder / "results"))


@pytest.fixture(scope="module")
def origin(bench: Bench) -> Record:
    return run_cell(bench, cell(test_stride=1))


@pytest.fixture(scope="module")
def raft(bench: Bench) -> Record:
    return run_cell(bench, cell("raft"))


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Record:
    return run_cell(bench, memory())


def audit(record: Record, demo: Dataset) -> Audit:
    ledger = Ledger()
    audit_record(record, {"demo": demo, "ETTh1": None}, ledger)
    return ledger.audit()


def only(record: Record, demo: Dataset) -> Finding:
    [finding] = audit(record, demo).findings
    return finding


def with_curves(record: Record, by_val: int, by_test: int, used: int, **options: Any) -> Record:
    """The record with CRPS curves that are lowest at these places of the grid, scored at weight `used`."""
    grid = np.linspace(0, 1, 21)
    curves = {
        split: dict.fromkeys(("mse", "mae", "crps"), (grid - grid[best]) ** 2 + 1)
        for split, best in (("val", by_val), ("test", by_test))
    }
    spec = memory(**options)
    metrics = record.metrics | {name: float(curve[used]) for name, curve in curves["test"].items()}
    changed = replace(record, spec=spec, key=spec.content_hash("x"), metrics=metrics, window_scores=None)
    return replace(changed, alpha=float(grid[used]), curves=FusionCurves(grid, curves["val"], curves["test"]))


def test_records_of_real_runs_have_no_findings(
    origin: Record, raft: Record, trained: Record, demo: Dataset
) -> None:
    for record in (origin, raft, trained):
        found = audit(record, demo)
        assert found.findings == ()
        looked = {check.name: check.looked for check in found.checks}
        assert looked[audits.SCALER] == looked[audits.WINDOWS] == 1
        assert (audits.SELECTION in looked) == (record.alpha is not None)
    assert {check.name: check.looked for check in audit(trained, demo).checks}[audits.CORPUS] == 3


def test_a_weight_tuned_on_test_that_says_validation_is_a_leak(trained: Record, demo: Dataset) -> None:
    finding = only(with_curves(trained, by_val=4, by_test=10, used=10), demo)
    assert (finding.severity, finding.check) == ("leak", audits.SELECTION)
    assert "its weight 0.5 is the best on the test curve" in finding.text
    assert "0.2 (CRPS)" in finding.text


def test_the_same_weight_declared_as_oracle_is_a_declared_leak(trained: Record, demo: Dataset) -> None:
    record = with_curves(trained, by_val=4, by_test=10, used=10, alpha_policy="oracle")
    finding = only(record, demo)
    assert (finding.severity, finding.check) == ("declared leak", audits.SELECTION)
    assert "validation has 0.2, whose CRPS is 9.00 % higher" in finding.text  # (0.5 - 0.2)² over 1


def test_a_weight_that_only_says_it_is_the_oracle_is_unfair(trained: Record, demo: Dataset) -> None:
    for used in (4, 7):
        finding = only(with_curves(trained, by_val=4, by_test=10, used=used, alpha_policy="oracle"), demo)
        assert (finding.severity, finding.check) == ("unfair", audits.SELECTION)
        assert "not the best on the test curve, which it says chose it and which has 0.5" in finding.text


def test_a_weight_of_neither_curve_is_unfair_and_one_of_both_is_fine(trained: Record, demo: Dataset) -> None:
    finding = only(with_curves(trained, by_val=4, by_test=10, used=7), demo)
    assert (finding.severity, finding.check) == ("unfair", audits.SELECTION)
    assert audit(with_curves(trained, by_val=4, by_test=4, used=4), demo).findings == ()


def test_a_weight_without_curves_cannot_be_told(trained: Record, demo: Dataset) -> None:
    finding = only(replace(trained, curves=None), demo)
    assert (finding.severity, finding.check) == ("note", audits.SELECTION)
    assert trained.curves is not None
    undefined = trained.curves.val | {"crps": np.full(21, np.nan)}
    finding = only(replace(trained, curves=replace(trained.curves, val=undefined)), demo)
    assert (finding.severity, finding.check) == ("note", audits.SELECTION)


def test_scores_of_another_weight_are_found(trained: Record, demo: Dataset) -> None:
    record = with_curves(trained, by_val=4, by_test=10, used=4)
    oracle = with_curves(trained, by_val=4, by_test=10, used=10)
    findings = audit(replace(record, metrics=oracle.metrics), demo).findings
    assert {(finding.severity, finding.check) for finding in findings} == {("unfair", audits.SCORES)}
    assert [finding.text.split()[1] for finding in findings] == ["MSE", "MAE", "CRPS"]


def test_a_crps_that_the_windows_do_not_have_is_found(origin: Record, demo: Dataset) -> None:
    finding = only(replace(origin, metrics=origin.metrics | {"crps": 0.9 * origin.metrics["crps"]}), demo)
    assert (finding.severity, finding.check) == ("unfair", audits.SCORES)
    assert finding.text.startswith("its CRPS is ")
    assert audit(replace(origin, metrics=origin.metrics | {"crps": np.nan}), demo).findings == ()


@pytest.mark.parametrize(("rows", "name"), [(slice(None), "all rows"), (slice(3200, 4000), "test rows")])
def test_a_scaler_that_saw_test_rows_is_a_leak(origin: Record, demo: Dataset, rows: slice, name: str) -> None:
    seen = demo.values[rows]
    scaled = (demo.values - seen.mean(axis=0)) / seen.std(axis=0)
    starts = origin.window_scores.start if origin.window_scores else np.zeros(0, dtype=np.int64)
    size = np.mean([np.abs(scaled[start : start + H]).mean() for start in starts])
    record = replace(origin, metrics=origin.metrics | {"mean_abs_target": float(size)})
    finding = only(record, demo)
    assert (finding.severity, finding.check) == ("leak", audits.SCALER)
    assert f"a scaler fitted on {name}" in finding.text


def test_units_that_no_scaler_gives_are_unfair(origin: Record, demo: Dataset) -> None:
    finding = only(replace(origin, metrics=origin.metrics | {"mean_abs_target": 3.0}), demo)
    assert (finding.severity, finding.check) == ("unfair", audits.SCALER)


def truncated(record: Record, kept: int, **changes: Any) -> Record:
    """Only the first windows, with the scores that they have."""
    assert record.window_scores is not None
    windows = replace(
        record.window_scores, **{name: array[:kept] for name, array in vars(record.window_scores).items()}
    )
    means = {name: float(getattr(windows, name).mean(dtype=np.float64)) for name in ("mse", "mae")}
    size = float(windows.abs_target.mean(dtype=np.float64))
    crps = float(windows.pinball.mean(dtype=np.float64)) / size
    metrics = record.metrics | means | {"mean_abs_target": size, "crps": crps}
    return replace(record, window_scores=windows, windows=kept, metrics=metrics, **changes)


def test_a_dropped_last_batch_is_found_whether_declared_or_not(origin: Record, demo: Dataset) -> None:
    assert origin.windows == 777
    finding = only(truncated(origin, 768), demo)
    assert (finding.severity, finding.check) == ("unfair", audits.WINDOWS)
    assert "768 of the 777 windows at stride 1: 9 are left out" in finding.text
    assert "drops an incomplete batch of 16, and it does not say so" in finding.text
    spec = cell(test_stride=1, drop_last=32)
    declared = truncated(origin, 768, spec=spec)
    finding = only(declared, demo)
    assert finding.severity == "unfair"
    assert "the last 9 of 777 windows, an incomplete batch of 32, as it says" in finding.text


def test_windows_in_the_train_rows_are_a_leak(origin: Record, demo: Dataset) -> None:
    assert origin.window_scores is not None
    moved = replace(origin.window_scores, start=origin.window_scores.start - 1000)
    finding = only(replace(origin, window_scores=moved), demo)
    assert (finding.severity, finding.check) == ("leak", audits.WINDOWS)
    assert "777 of its 777 windows have targets outside the test rows 3200 to 4000" in finding.text


def test_other_windows_than_the_protocols_are_unfair(origin: Record, demo: Dataset) -> None:
    finding = only(replace(origin, test_stride=2), demo)
    assert "777 of 777 windows at stride 2; the protocol has 777 of 777 at stride 1" in finding.text


@pytest.mark.parametrize(
    ("name", "factor", "severity"),
    [("known_windows", 100, "leak"), ("known_windows", 0.5, "unfair"), ("val_windows", 100, "leak")],
)
def test_a_corpus_that_the_splits_do_not_hold_is_found(
    raft: Record, demo: Dataset, name: str, factor: float, severity: str
) -> None:
    record = replace(raft, metrics=raft.metrics | {name: raft.metrics[name] * factor})
    finding = only(record, demo)
    assert (finding.severity, finding.check) == (severity, audits.CORPUS)


@pytest.mark.parametrize(("protocol", "age"), [(0, "an older"), (99, "an unknown, newer")])
def test_another_protocol_is_said_and_nothing_else_checked(
    origin: Record, demo: Dataset, protocol: int, age: str
) -> None:
    made = replace(origin.provenance, protocol=protocol)
    found = audit(replace(origin, provenance=made), demo)
    assert [finding.severity for finding in found.findings] == ["unfair"]
    assert f"{age} protocol, version {protocol}" in found.findings[0].text
    assert {check.name for check in found.checks} == {audits.IDENTITY}


def test_other_data_and_a_changed_specification_are_found_without_the_data(
    origin: Record, demo: Dataset
) -> None:
    spec = cell(dataset="ETTh1")
    record = replace(origin, spec=spec, window_scores=None)
    assert "the catalogue's are f18de3ad" in only(record, demo).text
    sha256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
    made = replace(record.provenance, data_sha256=sha256)
    assert "key is not the one" in only(replace(record, provenance=made), demo).text
    sound = replace(record, provenance=made, key=spec.content_hash(sha256))
    assert audit(sound, demo).findings == ()


def test_the_key_of_a_later_revision_is_its_own(
    origin: Record, demo: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, data = cell(dataset="ETTh1"), source_sha256(catalogue().entries["ETTh1"])
    made = replace(origin.provenance, data_sha256=data)
    monkeypatch.setattr(audits, "revisions", lambda spec: ["origin revision 2"])
    record = replace(origin, spec=spec, window_scores=None, provenance=made)
    assert audit(replace(record, key=spec.content_hash(data, "origin revision 2")), demo).findings == ()
    assert "key is not the one" in only(replace(record, key=spec.content_hash(data)), demo).text


def test_exclusion_self_is_declared(trained: Record, demo: Dataset) -> None:
    spec = memory(teacher={"exclusion": "self"})
    finding = only(replace(trained, spec=spec), demo)
    assert (finding.severity, finding.check) == ("declared leak", audits.RULE)


def saved(bench: Bench, root: Path, *records: Record) -> Audit:
    store = ResultsStore(root)
    for record in records:
        store.save(record)
    return audit_results(store, None)


def test_rows_of_one_table_with_other_windows_are_unfair(
    bench: Bench, origin: Record, tmp_path: Path
) -> None:
    assert origin.window_scores is not None
    starts = origin.window_scores.start.copy()
    starts[-1] -= 1
    twin = replace(
        origin,
        key="f" * 64,
        spec=cell(backbone="naive-last", test_stride=1),
        window_scores=replace(origin.window_scores, start=starts),
    )
    found = saved(bench, tmp_path, origin, twin).findings
    assert ("unfair", "rows of one table made alike") in {(f.severity, f.check) for f in found}


def test_settings_that_do_not_compare_and_single_seeds_are_noted(
    bench: Bench, origin: Record, raft: Record, trained: Record, tmp_path: Path
) -> None:
    found = saved(bench, tmp_path, origin, raft, trained)
    assert found.leaks == ()
    texts = {finding.check: finding.text for finding in found.findings}
    strides = f"test stride 1, {raft.test_stride}"
    assert strides in texts["one setting per data set and horizon"]
    assert texts["several seeds"].startswith("1 of 1 trained cells")


def test_an_empty_folder_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match="no results in"):
        audit_results(ResultsStore(tmp_path), None)


def planted_teacher(folder: Path, neighbours: list[int], exclusion: str) -> Audit:
    path = folder / "teachers" / ("a" * 32) / "teacher.safetensors"
    path.parent.mkdir(parents=True)
    starts = np.array(neighbours, dtype=np.int64)[None, None]
    weights = np.full(starts.shape, 1 / starts.size, dtype=np.float32)
    quantiles = np.zeros((1, 1, 3, H), dtype=np.float32)
    Teacher(np.array([500]), starts, weights, weights.max(axis=2), quantiles).save(path)
    options = TeacherOptions.model_validate({"exclusion": exclusion})
    borders = [[0, 2400], [2400, 3200], [3200, 4000]]
    content = {"horizon": H, "lookback": L, "borders": borders, "teacher": options.model_dump()}
    write_card(path.with_suffix(".json"), content)
    ledger = Ledger()
    audit_teachers(folder, ledger)
    return ledger.audit()


def test_a_neighbour_that_overlaps_the_target_is_a_leak(tmp_path: Path) -> None:
    found = planted_teacher(tmp_path, [100, 477, 900], "target")
    assert [finding.severity for finding in found.findings] == ["leak"]
    assert "1 of 3 neighbours are nearer than exclusion 'target' allows" in found.findings[0].text
    assert "the nearest is 23 steps away" in found.findings[0].text


def test_under_the_papers_rule_it_is_a_declared_leak(tmp_path: Path) -> None:
    found = planted_teacher(tmp_path, [100, 477, 900], "self")
    assert [finding.severity for finding in found.findings] == ["declared leak"]


def test_a_neighbour_beyond_the_train_rows_is_a_leak(tmp_path: Path) -> None:
    found = planted_teacher(tmp_path, [100, 2377, 900], "target")
    assert [finding.severity for finding in found.findings] == ["leak"]
    assert "reach beyond the 2400 train rows" in found.findings[0].text


def test_neighbours_that_obey_the_rule_are_fine(tmp_path: Path) -> None:
    found = planted_teacher(tmp_path, [48, 476, 524, 2376], "target")
    assert found.findings == ()
    assert [check.looked for check in found.checks] == [4]

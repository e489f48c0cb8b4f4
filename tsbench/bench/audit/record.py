"""The audit of one stored record: everything that can be worked out again from its specification."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tsbench.bench.audit.findings import Ledger
from tsbench.bench.records import FusionCurves, Record, WindowScores
from tsbench.bench.runner import describe, revisions
from tsbench.config import PROTOCOL_VERSION, CellSpec, profile
from tsbench.data.catalog import CollectionEntry, catalogue
from tsbench.data.dataset import Dataset
from tsbench.data.load import source_sha256
from tsbench.data.splits import Scaler
from tsbench.data.windows import window_grid
from tsbench.errors import TsbenchError
from tsbench.methods.task import Task, make_task
from tsbench.methods.ts_memory.teaching import train_windows
from tsbench.registry import ONLINE_RETRIEVAL

SELECTION = "fusion weight chosen where the record says"
SCORES = "scores are those of the fusion weight and of the windows"
WINDOWS = "windows are those of the protocol"
SCALER = "scaling fitted on train rows"
CORPUS = "train and validation windows are those of the splits"
IDENTITY = "protocol, data and key are the record's own"
RULE = "exclusion rule"

# Scores are stored in float64, window by window in float32; a score of other windows differs by more.
_SAME = 1e-4
_BATCHES = (8, 16, 32, 64, 128, 256, 512, 1024)


def group_of(record: Record) -> str:
    """Data set and horizon."""
    return f"{record.spec.dataset}, H = {record.spec.horizon}"


def cell_of(record: Record) -> str:
    """The cell within its group, with the first digits of its key, which are in its file's name."""
    return f"{describe(record.spec).partition(': ')[2]} [{record.key[:8]}]"


def audit_record(record: Record, datasets: Mapping[str, Dataset | None], ledger: Ledger) -> None:
    """Check a record against its specification, its curves and windows, and its data.

    Args:
        record: With window scores and curves, where it has them.
        datasets: Long data sets by name; None for those that are not here or are collections.
        ledger: Where findings go.
    """
    if not _audit_identity(record, ledger):
        return
    if record.alpha is not None:
        _audit_selection(record, ledger)
    _audit_rule(record, ledger)
    _audit_scores(record, ledger)
    entry = catalogue().entries.get(record.spec.dataset)
    if isinstance(entry, CollectionEntry):
        ledger.look(WINDOWS)
        stride = -(-entry.series * entry.horizon // profile(record.spec.profile).max_test_values)
        stride = record.spec.test_stride or stride
        _compare_counts(record, len(range(0, entry.series, stride)), entry.series, stride, ledger)
        return
    dataset = datasets[record.spec.dataset]
    if dataset is None or dataset.sha256 != record.provenance.data_sha256:
        return
    task = _task(record.spec, dataset)
    _audit_windows(record, task, ledger)
    _audit_scaler(record, task, ledger)
    sources = [datasets[source.dataset] for source in record.spec.sources()]
    if all(source is not None for source in sources):
        _audit_corpus(record, task, [source for source in sources if source is not None], ledger)


def _task(spec: CellSpec, dataset: Dataset) -> Task:
    return make_task(spec, profile(spec.profile), dataset, Path(), lambda line: None)


def _audit_identity(record: Record, ledger: Ledger) -> bool:
    """Whether the record was made under this protocol, so that the rest can be worked out again."""
    spec, made = record.spec, record.provenance

    def off(text: str) -> None:
        ledger.find("unfair", IDENTITY, group_of(record), cell_of(record), text)

    ledger.look(IDENTITY)
    if made.protocol != PROTOCOL_VERSION:
        age = "an older" if made.protocol < PROTOCOL_VERSION else "an unknown, newer"
        off(
            f"it was made under {age} protocol, version {made.protocol}; this one is {PROTOCOL_VERSION}, and "
            "nothing else of it was checked."
        )
        return False
    pins = [_known_sha256(name) for name in (spec.dataset, *spec.train_datasets)]
    if pins[0] is not None and made.data_sha256 != pins[0]:
        off(f"its data have the checksum {made.data_sha256[:8]}…, the catalogue's are {pins[0][:8]}….")
    elif all(pin is not None for pin in pins) and record.key != (_key(spec, map(str, pins)) or record.key):
        off(
            "its key is not the one of its specification, data and revisions: one of them was changed after "
            "the run."
        )
    return True


def _key(spec: CellSpec, sha256: Iterable[str]) -> str | None:
    """Key of a cell; None where its method or backbone comes from a package that is not installed."""
    try:
        return spec.content_hash(*sha256, *revisions(spec))
    except TsbenchError:
        return None


def _known_sha256(name: str) -> str | None:
    """Checksum of a data set with files; None for generated ones and those of users and other packages."""
    entry = catalogue().entries.get(name)
    return source_sha256(entry) if entry is not None and entry.files else None


def _audit_selection(record: Record, ledger: Ledger) -> None:
    """The weight is the argmin of the curve of the split that the record says chose it."""
    ledger.look(SELECTION)
    options = record.spec.options
    policy, criterion = (options.alpha_policy, options.alpha_criterion) if options else ("val", "crps")
    name, where = criterion.upper(), (SELECTION, group_of(record), cell_of(record))
    curves = record.curves
    if curves is None or np.isnan([curves.val[criterion], curves.test[criterion]]).any():
        text = (
            f"it fuses with weight {record.alpha:g} and stores no {name} by weight, so what chose it cannot"
        )
        ledger.find("note", *where, f"{text} be told.")
        return
    by_val, by_test = (
        float(curves.alpha[np.argmin(split[criterion])]) for split in (curves.val, curves.test)
    )
    split, stated = ("test", by_test) if policy == "oracle" else ("validation", by_val)
    if record.alpha == stated:
        if policy == "oracle":
            cost = curves.test[criterion]
            gain = _at(curves, cost, by_val) / _at(curves, cost, by_test) - 1
            ledger.find(
                "declared leak",
                *where,
                f"its weight {record.alpha:g} was chosen on the test split, as stated; validation has "
                f"{by_val:g}, whose {name} is {100 * gain:.2f} % higher.",
            )
    elif record.alpha == by_test:
        ledger.find(
            "leak",
            *where,
            f"its weight {record.alpha:g} is the best on the test curve; the validation curve, which it says "
            f"chose it, has {by_val:g} ({name}).",
        )
    else:
        ledger.find(
            "unfair",
            *where,
            f"its weight {record.alpha:g} is not the best on the {split} curve, which it says chose it and "
            f"which has {stated:g} ({name}).",
        )


def _at(curves: FusionCurves, values: NDArray[np.float64], alpha: float) -> float:
    return float(values[np.argmin(np.abs(curves.alpha - alpha))])


def _audit_rule(record: Record, ledger: Ledger) -> None:
    """The paper's exclusion rule lets a train query's answer into its neighbours; the record says so."""
    options = record.spec.options
    if options is None or options.ablation == "no-retrieval":
        return
    ledger.look(RULE)
    if options.teacher.exclusion == "self":
        train, val = (
            record.metrics.get(f"teacher_mae_{split}", np.nan)
            / record.metrics.get(f"base_mae_{split}", np.nan)
            for split in ("train", "val")
        )
        ledger.find(
            "declared leak",
            RULE,
            group_of(record),
            cell_of(record),
            "exclusion 'self' lets neighbours hold target steps of their train query: the teacher's error is "
            f"{train:.2f} of the backbone's on train queries and {val:.2f} on validation ones.",
        )


def _audit_scores(record: Record, ledger: Ledger) -> None:
    """Stored scores agree with the window scores and, where fused, with the test curve at the weight."""
    for name in ("mse", "mae", "crps"):
        stored = record.metrics.get(name)
        others = {}
        if record.window_scores is not None:
            others["the mean over its windows"] = _over_windows(record.window_scores, name)
        if record.curves is not None and record.alpha is not None:
            others["the test curve at its weight"] = _at(
                record.curves, record.curves.test[name], record.alpha
            )
        for what, value in others.items():
            if name == "crps" and (stored is None or np.isnan([stored, value]).any()):
                continue  # of point forecasts
            ledger.look(SCORES)
            if stored is None or abs(stored - value) > _SAME * max(abs(value), 1e-12):
                ledger.find(
                    "unfair",
                    SCORES,
                    group_of(record),
                    cell_of(record),
                    f"its {name.upper()} is {stored}, {what} has {value:.6g}.",
                )


def _over_windows(scores: WindowScores, name: str) -> float:
    """The score of all windows; the CRPS, which is pooled, is a ratio of means."""
    if name != "crps":
        return float(getattr(scores, name).mean(dtype=np.float64))
    size = scores.abs_target.mean(dtype=np.float64)
    return float(scores.pinball.mean(dtype=np.float64) / size) if size else np.nan


def _audit_windows(record: Record, task: Task, ledger: Ledger) -> None:
    """The scored windows lie in the test rows, and are those that specification and profile give."""
    ledger.look(WINDOWS)
    spec, (first, end) = record.spec, task.borders.test
    where = WINDOWS, group_of(record), cell_of(record)
    grid = task.test_windows()
    starts = record.window_scores.start if record.window_scores is not None else grid.starts
    outside = int(((starts < first) | (starts + spec.horizon > end)).sum())
    if outside:
        ledger.find(
            "leak",
            *where,
            f"{outside} of its {len(starts)} windows have targets outside the test rows {first} to {end}; "
            f"the first target row is {starts.min()}.",
        )
        return
    if spec.drop_last:
        every = window_grid(task.borders, "test", spec.lookback, spec.horizon, grid.stride)
        ledger.find(
            "unfair",
            *where,
            f"it leaves out the last {len(every.starts) - len(grid.starts)} of {len(every.starts)} windows, "
            f"an incomplete batch of {spec.drop_last}, as it says.",
        )
    if record.windows < len(grid.starts) and record.test_stride == grid.stride:
        missing = len(grid.starts) - record.windows
        batches = [size for size in _BATCHES if len(grid.starts) // size * size == record.windows]
        guess = f", as a loader does that drops an incomplete batch of {batches[0]}" if batches else ""
        ledger.find(
            "unfair",
            *where,
            f"it scores {record.windows} of the {len(grid.starts)} windows at stride {grid.stride}: "
            f"{missing} are left out{guess}, and it does not say so.",
        )
        return
    _compare_counts(record, len(grid.starts), grid.total, grid.stride, ledger)
    if record.windows == len(grid.starts) and not np.array_equal(starts, grid.starts):
        ledger.find("unfair", *where, "its windows are as many as the protocol's, but not the same.")


def _compare_counts(record: Record, windows: int, total: int, stride: int, ledger: Ledger) -> None:
    found = (record.windows, record.windows_total, record.test_stride)
    if found != (windows, total, stride):
        ledger.find(
            "unfair",
            WINDOWS,
            group_of(record),
            cell_of(record),
            "it says {} of {} windows at stride {}; the protocol has {} of {} at stride {}.".format(
                *found, windows, total, stride
            ),
        )


def _audit_scaler(record: Record, task: Task, ledger: Ledger) -> None:
    """The mean |target| in standardised units gives away which rows the scaler was fitted on."""
    stored, starts = record.metrics.get("mean_abs_target"), task.test_windows().starts
    if record.window_scores is not None:
        starts = record.window_scores.start
    first, end = task.borders.test
    if stored is None or starts.min() < first or starts.max() + record.spec.horizon > end:
        return
    ledger.look(SCALER)
    where = SCALER, group_of(record), cell_of(record)
    values, horizon = task.dataset.values, record.spec.horizon
    by_train = _mean_abs_target(values, slice(*task.borders.train), starts, horizon)
    if _close(stored, by_train):
        return
    said = f"its targets have a mean size of {stored:.6g} standard deviations"
    others = {
        "all rows": slice(None),
        "train, validation and test rows": slice(0, end),
        "test rows": slice(first, end),
    }
    for name, rows in others.items():
        if _close(stored, _mean_abs_target(values, rows, starts, horizon)):
            text = f"{said}, as by a scaler fitted on {name}; one fitted on train rows gives {by_train:.6g}."
            ledger.find("leak", *where, text)
            return
    ledger.find("unfair", *where, f"{said}; a scaler fitted on train rows gives {by_train:.6g}.")


def _mean_abs_target(
    values: NDArray[np.float64], rows: slice, starts: NDArray[np.int64], horizon: int
) -> float:
    """Mean |target| over windows, steps and channels, standardised by the given rows."""
    size = np.abs(Scaler.fit(values[rows]).transform(values)).mean(axis=1, dtype=np.float64)
    sums = np.concatenate([[0.0], np.cumsum(size)])
    return float((sums[starts + horizon] - sums[starts]).mean() / horizon)


def _close(left: float, right: float) -> bool:
    return abs(left - right) <= _SAME * abs(right)


def _audit_corpus(record: Record, task: Task, sources: list[Dataset], ledger: Ledger) -> None:
    """The numbers of windows retrieved, trained on and tuned on are those that the splits hold."""
    spec, stated = record.spec, record.metrics
    donors = [_task(cell, dataset) for cell, dataset in zip(spec.sources(), sources, strict=True)]
    learned = [replace(donor, profile=donor.profile.share(len(donors))) for donor in donors] or [task]
    expected: dict[str, tuple[int, int]] = {}  # as the protocol has it, and the most that fits
    if spec.method in ONLINE_RETRIEVAL:
        expected["known_windows"] = len(train_windows(task).known.starts), _most(task)
    if spec.method == "ts-memory":
        pairs = (len(train_windows(part).queries.starts) * part.channels for part in learned)
        expected["train_pairs"] = sum(pairs), sum(_most(part) * part.channels for part in learned)
    if spec.method == "supervised":
        every = _most(task)
        expected["train_windows"] = -(-every // (spec.train_stride or 1)), every
    if "val_windows" in stated:
        grid = task.windows("val", task.profile.max_val_values)
        expected["val_windows"] = len(grid.starts), grid.total
        expected["val_windows_total"] = grid.total, grid.total
    for name, (number, most) in expected.items():
        if name not in stated:
            continue
        ledger.look(CORPUS)
        found = int(stated[name])
        if found == number:
            continue
        rows = "validation" if name.startswith("val") else "train"
        ledger.find(
            "leak" if found > most else "unfair",
            CORPUS,
            group_of(record),
            cell_of(record),
            f"its {name} is {found}; its profile has {number}, and the {rows} rows hold {most}.",
        )


def _most(task: Task) -> int:
    """Train windows at stride 1."""
    return window_grid(task.borders, "train", task.spec.lookback, task.spec.horizon).total

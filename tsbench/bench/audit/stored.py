"""The audit of a results folder: every record by itself, then the records that would share a table."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tsbench.bench.audit.findings import Audit, Ledger
from tsbench.bench.audit.record import audit_record, cell_of, group_of
from tsbench.bench.audit.teachers import audit_teachers
from tsbench.bench.provenance import score_device
from tsbench.bench.records import Record
from tsbench.bench.runner import NAIVE_BACKBONES
from tsbench.bench.store import ResultsStore
from tsbench.data.catalog import catalogue, find_collection
from tsbench.data.dataset import Dataset
from tsbench.data.load import load_dataset
from tsbench.data.local import is_present
from tsbench.data.paths import default_data_dir
from tsbench.errors import TsbenchError
from tsbench.registry import NOT_TRAINED


def audit_results(store: ResultsStore, mirror: Path | None, artifacts: Path | None = None) -> Audit:
    """Audit every stored record, and the teachers that are still on disk.

    What needs the data (windows, scaling, corpus) is checked where the data set is on this machine; nothing
    is downloaded.

    Args:
        store: The results.
        mirror: Local mirror of the public data, if there is one.
        artifacts: Folder of what cells learned; None leaves the teachers out.

    Raises:
        TsbenchError: There are no results, or a file is damaged.
    """
    keys = [record.key for record in store.records()]
    if not keys:
        raise TsbenchError(f"no results in {store.root}/; run `tsbench run` first")
    ledger = Ledger()
    datasets: dict[str, Dataset | None] = {}
    records = []
    for key in keys:
        record = store.load(key)
        assert record is not None  # its file was just listed
        for name in {record.spec.dataset, *record.spec.train_datasets} - datasets.keys():
            datasets[name] = _dataset(name, mirror)
        audit_record(record, datasets, ledger)
        records.append(record)
    _audit_absent_data(records, datasets, ledger)
    _audit_tables(records, ledger)
    _audit_settings(records, ledger)
    _audit_folder(records, ledger)
    if artifacts is not None:
        audit_teachers(artifacts, ledger)
    return ledger.audit()


def _dataset(name: str, mirror: Path | None) -> Dataset | None:
    """A long data set of the catalogue that is on this machine."""
    entry = catalogue().entries.get(name)
    if entry is None or find_collection(name):
        return None
    here = not entry.files or is_present(entry, mirror, default_data_dir())
    return load_dataset(name, mirror) if here else None


def _audit_absent_data(
    records: Iterable[Record], datasets: dict[str, Dataset | None], ledger: Ledger
) -> None:
    for name in sorted({record.spec.dataset for record in records}):
        if datasets[name] is None and not find_collection(name):
            ledger.find(
                "note",
                "data at hand",
                name,
                "all cells",
                f"{name} is not on this machine or not in the catalogue, so windows, scaling and corpus of "
                "its cells were not checked.",
            )


def _audit_tables(records: Iterable[Record], ledger: Ledger) -> None:
    """Rows that a report puts into one table were made alike."""
    tables: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in records:
        tables[_table_key(record)].append(record)
    for rows in tables.values():
        group, first = group_of(rows[0]), rows[0]
        ledger.look("rows of one table made alike", len(rows) - 1)
        protocols = sorted({row.provenance.protocol for row in rows})
        if len(protocols) > 1:
            ledger.find(
                "unfair",
                "rows of one table made alike",
                group,
                f"{len(rows)} rows",
                f"one table mixes the protocol versions {', '.join(map(str, protocols))}.",
            )
        reference = next((row for row in rows if row.window_scores is not None), first)
        for row in rows:
            if row.window_scores is None or reference.window_scores is None:
                continue
            starts, wanted = row.window_scores.start, reference.window_scores.start
            if not np.array_equal(starts, wanted):
                other = len(np.setxor1d(starts, wanted))
                ledger.find(
                    "unfair",
                    "rows of one table made alike",
                    group,
                    cell_of(row),
                    f"it is scored on as many windows as {cell_of(reference)}, but {other} of them are not "
                    "the same.",
                )


def _audit_settings(records: Iterable[Record], ledger: Ledger) -> None:
    """One data set and horizon under several settings: figures that must not be read side by side."""
    settings: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    for record in records:
        settings[group_of(record)].add(_table_key(record))
    for group, keys in settings.items():
        ledger.look("one setting per data set and horizon")
        if len(keys) < 2:
            continue
        differing = [
            f"{name} {', '.join(sorted({str(key[place]) for key in keys}, key=_by_number))}"
            for place, name in enumerate(_TABLE_FIELDS)
            if len({key[place] for key in keys}) > 1
        ]
        ledger.find(
            "note",
            "one setting per data set and horizon",
            group,
            f"{len(keys)} settings",
            f"these do not compare, and reports keep them apart: {'; '.join(differing)}.",
        )


_TABLE_FIELDS = ("lookback", "profile", "drop-last", "windows", "test stride", "device", "data")


def _table_key(record: Record) -> tuple[object, ...]:
    """What rows of one table of `tsbench report` share, in the order of `_TABLE_FIELDS`, then the group."""
    spec, made = record.spec, record.provenance
    return (
        0 if find_collection(spec.dataset) else spec.lookback,
        spec.profile,
        spec.drop_last or 0,
        f"{record.windows} of {record.windows_total}",
        record.test_stride,
        score_device(made.device),
        made.data_sha256[:8],
        group_of(record),
    )


def _by_number(text: str) -> tuple[float, str]:
    first = text.split()[0]
    return (float(first) if first.isdigit() else 0.0), text


def _audit_folder(records: list[Record], ledger: Ledger) -> None:
    """What can be said of a method over all of its cells: seeds, and the code that ran."""
    seeds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for record in records:
        spec = record.spec
        if spec.method not in NOT_TRAINED and spec.backbone not in NAIVE_BACKBONES:
            cell = spec.model_dump_json(exclude={"seed", "device", "samples"})
            seeds[spec.method, cell].add(spec.seed)
    for method in sorted({method for method, _ in seeds}):
        counts = [len(found) for (name, _), found in seeds.items() if name == method]
        single = sum(count == 1 for count in counts)
        ledger.look("several seeds", len(counts))
        if single:
            ledger.find(
                "note",
                "several seeds",
                "all results",
                method,
                f"{single} of {len(counts)} trained cells have one seed, so their luck cannot be told.",
                single,
            )
    ledger.look("committed code", len(records))
    dirty = [record for record in records if "+" in record.provenance.code_version.partition("(")[2]]
    if dirty:
        ledger.find(
            "note",
            "committed code",
            "all results",
            f"{len(dirty)} records",
            f"{len(dirty)} of {len(records)} records were made by code that differed from its commit.",
            len(dirty),
        )

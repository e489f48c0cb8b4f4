"""Results on disk: one small parquet file per finished cell, readable by any data-frame library.

    <root>/records/<dataset>/<horizon>-<method>-<backbone>-<key>.parquet   one row per metric, see COLUMNS
    <root>/windows/<dataset>/<same name>.parquet                           errors of each test window
    <root>/curves/<dataset>/<same name>.parquet                            scores against the fusion weight
    <root>/details/<dataset>/<same name>.parquet                           by step, calibration, samples
    <root>/failures/<key>.json                                             cells that ended in an error
    <root>/latency/<dataset>/<horizon>-<batch>-<backbone>-<key>.json       what a query costs

The record is written last and under its final name only when complete: a cell is done when it exists.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tsbench.bench.columns import COLUMNS, certificate
from tsbench.bench.records import (
    Details,
    Failure,
    FusionCurves,
    Provenance,
    Record,
    SampleForecasts,
    WindowScores,
)
from tsbench.config import CellSpec
from tsbench.errors import TsbenchError
from tsbench.fsio import atomic_write
from tsbench.stages import is_cost

_KEY_DIGITS = 12  # of a key in a file's name


@dataclass(frozen=True)
class ResultsStore:
    """Saves and finds finished cells.

    Cells are files of their own, so any number of processes may save different cells at once; of two that
    save the same cell, the last one stays.

    Attributes:
        root: Folder of the results; made when the first file is written.
    """

    root: Path

    def check_writable(self) -> None:
        """Try to write, so that a long run does not end in a disk error.

        Raises:
            TsbenchError: The folder cannot be written.
        """
        probe = self.root / "records" / ".writable"
        write(probe, b"")
        probe.unlink(missing_ok=True)

    def save(self, record: Record) -> Path:
        """Write a finished cell, and forget that it failed before.

        Returns:
            The record file.

        Raises:
            TsbenchError: A file cannot be written; the cell then counts as not done.
            ValueError: The record has no metric, or one named like a column or a cost.
        """
        if not record.metrics or record.metrics.keys() & COLUMNS.keys() or any(map(is_cost, record.metrics)):
            raise ValueError(f"not metrics of a record: {sorted(record.metrics)}")
        path = self._path("records", record)
        if record.window_scores is not None:
            scores = pl.DataFrame(vars(record.window_scores))
            write(self._path("windows", record), _to_parquet(scores))
        if record.curves is not None:
            write(self._path("curves", record), _to_parquet(_curves_to_frame(record.curves)))
        if record.details is not None:
            write(self._path("details", record), _to_parquet(_details_to_frame(record.details)))
        write(path, _to_parquet(_record_to_frame(record)))
        self._failure_path(record.key).unlink(missing_ok=True)
        return path

    def load(self, key: str) -> Record | None:
        """Read one cell with its window scores, curves and details.

        Returns:
            The record, or None if the cell is not done.

        Raises:
            TsbenchError: One of its files is damaged.
        """
        for path in self.root.glob(f"records/*/*-{key[:_KEY_DIGITS]}.parquet"):
            record = _read_record(path)
            if record.key == key:
                windows, curves, details = (
                    self._path(kind, record) for kind in ("windows", "curves", "details")
                )
                return replace(
                    record,
                    window_scores=_read_windows(windows) if windows.is_file() else None,
                    curves=_read_curves(curves) if curves.is_file() else None,
                    details=_read_details(details) if details.is_file() else None,
                )
        return None

    def done(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose cells are done, by file names alone."""
        found = {path.stem[-_KEY_DIGITS:] for path in self._record_files()}
        return {key for key in keys if key[:_KEY_DIGITS] in found}

    def records(self) -> list[Record]:
        """Read all cells without window scores, curves and details, ordered by file name.

        Raises:
            TsbenchError: A file is damaged.
        """
        return [_read_record(path) for path in self._record_files()]

    def table(self) -> pl.DataFrame:
        """Read the rows of all record files, in the columns of COLUMNS.

        Raises:
            TsbenchError: A file is damaged.
        """
        schema = {name: column.dtype for name, column in COLUMNS.items()}
        return pl.concat([pl.DataFrame(schema=schema), *map(_read_record_frame, self._record_files())])

    def save_failure(self, failure: Failure) -> Path:
        """Write down that a cell failed; the file goes when the cell succeeds.

        Raises:
            TsbenchError: The file cannot be written.
        """
        path = self._failure_path(failure.key)
        content = vars(failure) | {"spec": failure.spec.model_dump(mode="json")}
        write(path, json.dumps(content, indent=2).encode())
        return path

    def failures(self) -> list[Failure]:
        """Read the cells that failed and have not succeeded since, ordered by key.

        Raises:
            TsbenchError: A file is damaged.
        """
        found = []
        for path in sorted(self.root.glob("failures/*.json")):
            with readable(path):
                content = json.loads(path.read_bytes())
                found.append(Failure(**content | {"spec": CellSpec.model_validate(content["spec"])}))
        return found

    def _record_files(self) -> list[Path]:
        return sorted(self.root.glob("records/*/*.parquet"))

    def _failure_path(self, key: str) -> Path:
        return self.root / "failures" / f"{key}.json"

    def _path(self, kind: str, record: Record) -> Path:
        spec = record.spec
        name = f"{spec.horizon}-{spec.method}-{spec.backbone}-{record.key[:_KEY_DIGITS]}.parquet"
        return self.root / kind / file_name(spec.dataset) / file_name(name)


def file_name(text: str) -> str:
    """Replace what some file system refuses in a name."""
    return re.sub(r"[^\w.-]+", "_", text)


def write(path: Path, content: bytes) -> None:
    """Write a file of the results, whole or not at all.

    Raises:
        TsbenchError: It cannot be written.
    """
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise TsbenchError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another directory"
        ) from error


_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # some corrupt pages end in a panic of the reader, no PolarsError
)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Report whatever goes wrong inside as damage to `path`."""
    try:
        yield
    except _DAMAGE as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise TsbenchError(f"cannot read {path} ({cause}); delete it and run again") from error


def _to_parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()


def _record_to_frame(record: Record) -> pl.DataFrame:
    shared = certificate(record)
    rows = [
        shared | {"metric": name, "value": value} for name, value in (record.metrics | record.costs).items()
    ]
    return pl.DataFrame(rows, schema={name: column.dtype for name, column in COLUMNS.items()})


def _read_record_frame(path: Path) -> pl.DataFrame:
    with readable(path):
        return pl.read_parquet(path.read_bytes()).select(list(COLUMNS))


def _read_record(path: Path) -> Record:
    frame = _read_record_frame(path)
    with readable(path):
        row = frame.row(0, named=True)
        made = {name: row[name] for name in Provenance.__dataclass_fields__}
        values = dict(zip(frame["metric"], frame["value"], strict=True))
        return Record(
            key=row["key"],
            spec=CellSpec.model_validate_json(row["spec"]),
            metrics={name: value for name, value in values.items() if not is_cost(name)},
            costs={name: value for name, value in values.items() if is_cost(name)},
            windows=row["windows"],
            windows_total=row["windows_total"],
            test_stride=row["test_stride"],
            levels=tuple(json.loads(row["levels"])),
            alpha=row["alpha"],
            provenance=Provenance(**made | {"versions": json.loads(row["versions"])}),
        )


def _read_windows(path: Path) -> WindowScores:
    with readable(path):
        return WindowScores(**_arrays(pl.read_parquet(path.read_bytes())))


def _curves_to_frame(curves: FusionCurves) -> pl.DataFrame:
    splits = {"val": curves.val, "test": curves.test}
    return pl.concat(
        pl.DataFrame({"alpha": curves.alpha, **scores}).select(pl.lit(split).alias("split"), pl.all())
        for split, scores in splits.items()
    )


def _read_curves(path: Path) -> FusionCurves:
    with readable(path):
        frame = pl.read_parquet(path.read_bytes())
        val, test = (_arrays(frame.filter(split=split).drop("split")) for split in ("val", "test"))
        return FusionCurves(alpha=val.pop("alpha"), val=val, test={name: test[name] for name in val})


def _details_to_frame(details: Details) -> pl.DataFrame:
    """One row, a column per array, each a list in C order."""
    arrays = vars(details) | vars(details.samples)
    del arrays["samples"]
    arrays["time"] = details.samples.time.astype("datetime64[ms]")  # the coarsest unit of a data frame
    return pl.DataFrame({name: [pl.Series(np.ravel(values))] for name, values in arrays.items()})


def _read_details(path: Path) -> Details:
    with readable(path):
        frame = pl.read_parquet(path.read_bytes())
        arrays = {name: frame[name].item().to_numpy() for name in frame.columns}
        channels = tuple(frame["channels"].item())
        pairs, horizon = (len(arrays["start"]), len(channels)), len(arrays["mse"])
        return Details(
            **{name: arrays[name] for name in Details.__dataclass_fields__ if name != "samples"},
            samples=SampleForecasts(
                start=arrays["start"],
                time=arrays["time"].astype("datetime64[s]"),
                channels=channels,
                context=arrays["context"].reshape(*pairs, -1),
                target=arrays["target"].reshape(*pairs, horizon),
                forecast=arrays["forecast"].reshape(*pairs, -1, horizon),
            ),
        )


def _arrays(frame: pl.DataFrame) -> dict[str, NDArray[Any]]:
    return {name: frame[name].to_numpy() for name in frame.columns}

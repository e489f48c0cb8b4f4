"""Reading the source files: long CSV series, the M3 workbook and the M4 files."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray
from python_calamine import CalamineError, CalamineWorkbook

from tsbench.errors import TsbenchError

_TIME_FORMATS = ("ISO8601", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d")


@dataclass(frozen=True)
class LongTable:
    """A long CSV: values [T, C] float64, timestamps [T] datetime64[s], C channel names."""

    values: NDArray[np.float64]
    timestamps: NDArray[np.datetime64]
    channels: tuple[str, ...]


@dataclass(frozen=True)
class SeriesTable:
    """Short series: train parts [T_i], test parts [N, H] float64, N ids."""

    train: tuple[NDArray[np.float64], ...]
    test: NDArray[np.float64]
    ids: tuple[str, ...]


def read_long_csv(path: Path) -> LongTable:
    """Read a CSV whose first column is the time and whose others are numbers, in UTF-8 with a header.

    Rows stay as they are: their order, repeated timestamps and sentinels such as -9999 are kept. Times
    are ISO 8601 or year/month/day; those with an offset are converted to UTC.

    Raises:
        TsbenchError: The file cannot be read, or a cell is no finite number or no time; the message
            names its line (the header is line 1) and column.
    """
    header = _read_header(path)
    if len(header) < 2:
        raise TsbenchError(
            f"{path} has no value columns; write comma-separated columns, the first with the timestamps"
        )
    # Names are positions here: headers may repeat a name, and polars would rename it.
    schema: dict[str, type[pl.DataType]] = {str(i): pl.Float64 for i in range(len(header))} | {"0": pl.String}
    try:
        table = pl.read_csv(path, has_header=False, skip_rows=1, schema=schema, ignore_errors=True)
    except pl.exceptions.PolarsError as error:
        n = len(header)
        raise TsbenchError(
            f"{path} is not a CSV of {n} columns; save it as UTF-8 with {n} cells on every line"
        ) from error
    if table.is_empty():
        raise TsbenchError(f"{path} has no rows below its header; check the file")
    values = table.drop("0").to_numpy().astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = (int(index) for index in bad[0])
        raise TsbenchError(_describe_bad_cell(path, row, header[column + 1], column + 1))
    return LongTable(
        values=np.ascontiguousarray(values),
        timestamps=_parse_times(path, table["0"]),
        channels=tuple(header[1:]),
    )


def _read_header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream), [])
    except UnicodeDecodeError as error:
        raise TsbenchError(f"{path} is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise TsbenchError(f"cannot read {path}: {error.strerror}; check the path") from error


def _describe_bad_cell(path: Path, row: int, name: str, column: int) -> str:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        cells = next((cells for index, cells in enumerate(csv.reader(stream)) if index == row + 1), [])
    cell = cells[column].strip() if column < len(cells) else ""
    where = f"{path}, line {row + 2}, column '{name}'"
    if cell.lower() in ("", "nan", "na", "null", "none"):
        return f"{where}: the value is missing; interpolate it or drop the row or the column"
    return f"{where}: '{cell}' is not a finite number; convert it or drop the column"


def _parse_times(path: Path, column: pl.Series) -> NDArray[np.datetime64]:
    texts = column.fill_null("").to_list()
    for form in _TIME_FORMATS:
        times = pd.to_datetime(texts, format=form, errors="coerce", utc=True)
        if not times.hasnans:
            return times.tz_localize(None).to_numpy().astype("datetime64[s]")
        if times.notna().any():
            break  # this is the file's format; one of its cells is wrong
    row = int(np.flatnonzero(times.isna())[0])
    raise TsbenchError(
        f"{path}, line {row + 2}: '{texts[row]}' is not a time like the rest; "
        "write times as 2024-01-31 13:00:00 or 2024/1/31 13:00 in the first column"
    )


def read_m3(path: Path, sheet: str, horizon: int) -> SeriesTable:
    """Read one sheet of M3C.xls.

    A row holds id ("N   1", padded), N, NF, category, two starting periods and N values. N counts the
    test values, which are the last NF. Starting periods are not used: some are 0 or out of range. All
    values are kept, also the one non-positive value of M3, -1200 in the test part of N2786.

    Args:
        path: The workbook.
        sheet: "M3Year", "M3Quart", "M3Month" or "M3Other".
        horizon: Expected NF.

    Raises:
        TsbenchError: The workbook does not look as described.
    """
    train, test, ids = [], [], []
    try:
        rows: list[list[Any]] = CalamineWorkbook.from_path(path).get_sheet_by_name(sheet).to_python()
        for series, length, n_test, _, _, _, *cells in rows[1:]:
            values = np.asarray(cells[: int(length)], dtype=np.float64)
            if n_test != horizon or len(values) != length or any(cells[int(length) :]):
                raise ValueError(f"series {series} has other lengths than it states")
            train.append(values[:-horizon])
            test.append(values[-horizon:])
            ids.append(str(series).replace(" ", ""))
        return SeriesTable(tuple(train), np.stack(test), tuple(ids))
    except (CalamineError, ValueError, TypeError, OSError) as error:
        raise TsbenchError(
            f"cannot read sheet {sheet} of {path}: {error}; get the published M3C.xls"
        ) from error


def read_m4(train_path: Path, test_path: Path, horizon: int) -> SeriesTable:
    """Read the train and the test file of one M4 frequency.

    A line holds the id and the values, quoted; short train lines are padded with empty cells to the
    longest. Lines are read one by one: as a dense table Monthly-train would fill 1 GB, nine tenths of
    it padding.

    Raises:
        TsbenchError: A line has a gap or a word, the test part is not `horizon` long, or the ids differ.
    """
    train, test = _read_m4_lines(train_path), _read_m4_lines(test_path)
    if list(train) != list(test):
        raise TsbenchError(f"{train_path} and {test_path} hold different series; get both files again")
    lengths = {len(values) for values in test.values()}
    if lengths != {horizon}:
        raise TsbenchError(
            f"{test_path} holds {sorted(lengths)} values a series instead of {horizon}; get it again"
        )
    return SeriesTable(tuple(train.values()), np.stack(list(test.values())), tuple(train))


def _read_m4_lines(path: Path) -> dict[str, NDArray[np.float64]]:
    series = {}
    try:
        with path.open(encoding="utf-8") as stream:
            next(stream, None)
            for number, line in enumerate(stream, start=2):
                name, *cells = line.replace('"', "").rstrip().rstrip(",").split(",")
                try:
                    series[name] = np.array([float(cell) for cell in cells])
                except ValueError as error:
                    raise TsbenchError(
                        f"{path}, line {number}: {error}; values must be numbers without gaps"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TsbenchError(f"cannot read {path}: {error}; get it again") from error
    return series

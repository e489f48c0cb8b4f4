"""The user's own CSV file as a data set."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset, BusinessDay

from tsbench.data.dataset import Dataset
from tsbench.data.readers import read_long_csv
from tsbench.data.splits import SplitRule, split_borders
from tsbench.errors import TsbenchError

_HORIZONS = (96, 192, 336, 720)
_DAY_SECONDS = 86_400


def read_user_csv(path: Path, freq: str, split: SplitRule) -> Dataset:
    """Read a file with timestamps in the first column and numbers in all others.

    Args:
        path: CSV in UTF-8 with a header; at least one value column, no missing values.
        freq: Step between rows as a pandas offset alias, such as "1h". Single gaps are accepted, but the
            median step must be this one.
        split: How to divide the rows; `tsbench.data.splits.parse_split` reads it from text.

    Returns:
        The data set ``csv-<file stem>``, with the season that `default_season` gives and those of the
        horizons 96, 192, 336 and 720 that fit into validation and test.

    Raises:
        TsbenchError: The file, the frequency or the split does not do; the message says where and why.
    """
    step = _step_seconds(freq)
    dataset = read_any_csv(path, freq, split)
    repeated = sorted({name for name in dataset.channels if dataset.channels.count(name) > 1})
    if repeated:
        raise TsbenchError(f"{path} has several columns named '{repeated[0]}'; give each its own name")
    _check_times(path, dataset.timestamps, freq, step)
    return dataset


def read_any_csv(path: Path, freq: str, split: SplitRule) -> Dataset:
    """Read a file as `read_user_csv` does, whatever its times and the names of its columns, for an audit.

    Raises:
        TsbenchError: The file cannot be read, has missing values, or does not fit the split.
    """
    table = read_long_csv(path)
    borders = split_borders(split, len(table.values))
    table.values.setflags(write=False)
    longest = min(end - begin for begin, end in (borders.val, borders.test))
    return Dataset(
        name=f"csv-{path.stem}",
        values=table.values,
        timestamps=table.timestamps,
        channels=table.channels,
        freq=freq,
        season=default_season(freq),
        split=split,
        horizons=tuple(horizon for horizon in _HORIZONS if horizon <= longest),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def default_season(freq: str) -> int:
    """Seasonal period in steps that goes with a frequency.

    A day for steps that divide it ("1h" 24, "15min" 96), else 7 for days, 5 for business days, 52 for
    weeks, 12 for months, 4 for quarters, and 1 for everything else.

    Raises:
        TsbenchError: `freq` is no pandas offset alias.
    """
    if _parse_freq(freq) == BusinessDay():
        return 5
    step = _step_seconds(freq)
    if step < _DAY_SECONDS:
        return _DAY_SECONDS // step if _DAY_SECONDS % step == 0 else 1
    seasons = {1: 7, 7: 52, 28: 12, 29: 12, 30: 12, 31: 12, 90: 4, 91: 4, 92: 4}
    return seasons.get(step // _DAY_SECONDS, 1)


def _parse_freq(freq: str) -> BaseOffset:
    try:
        return to_offset(freq)
    except (ValueError, TypeError) as error:
        raise TsbenchError(
            f"unknown frequency '{freq}'; use a pandas offset alias such as 15min, 1h, 1D, W or ME"
        ) from error


def _step_seconds(freq: str) -> int:
    """Length of one step; of calendar steps such as months, one example."""
    offset = _parse_freq(freq)
    first = pd.Timestamp("2001-01-01") + offset
    seconds = int((first + offset - first).total_seconds())
    if seconds < 1:
        raise TsbenchError(f"frequency '{freq}' is shorter than a second; use one such as 15min, 1h or 1D")
    return seconds


def _check_times(path: Path, times: NDArray[np.datetime64], freq: str, step: int) -> None:
    """Times must rise, mostly by the step (within half of it, since months differ)."""
    gaps = np.diff(times).astype(np.int64)
    wrong = np.flatnonzero(gaps <= 0)
    if len(wrong):
        row = int(wrong[0]) + 1
        fault = "repeats" if gaps[row - 1] == 0 else "lies before"
        raise TsbenchError(
            f"{path}, line {row + 2}: the time {times[row]} {fault} the one of the line above; "
            "sort the rows and keep one of each time"
        )
    median = float(np.median(gaps))
    if not 0.5 < median / step < 1.5:
        raise TsbenchError(
            f"{path}: rows are {pd.Timedelta(seconds=median)} apart, which is not the frequency '{freq}'; "
            "correct --freq"
        )

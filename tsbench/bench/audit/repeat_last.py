"""Errors of the repeated last value, window by window: what a defect of the data does to scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsbench.data.dataset import Dataset
from tsbench.data.splits import Borders, Scaler, split_borders
from tsbench.data.windows import WindowGrid, gather_targets, window_grid
from tsbench.errors import TsbenchError

_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class RepeatLast:
    """The test windows of a data set and the errors of repeating the last value on them.

    Attributes:
        borders: Row ranges of the splits.
        grid: Every test window.
        mse: [W, C] float64, mean over steps, standardised units.
        mae: Likewise.
    """

    borders: Borders
    grid: WindowGrid
    mse: NDArray[np.float64]
    mae: NDArray[np.float64]

    def scores(self, kept: NDArray[np.bool_] | None = None) -> str:
        """MSE and MAE in words, over the (window, channel) pairs kept [W, C]; over all for None."""
        if kept is not None and not kept.any():
            return "no window"
        mse, mae = (
            float(errors[kept].mean() if kept is not None else errors.mean())
            for errors in (self.mse, self.mae)
        )
        return f"MSE {mse:.6f}, MAE {mae:.6f}"

    def touched(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Windows [W] whose context or target holds one of the rows."""
        marks = np.zeros(int(self.borders.test[1]) + 1, dtype=np.int64)
        marks[rows[rows < len(marks) - 1] + 1] = 1
        before = np.cumsum(marks)  # rows marked before each row
        starts, grid = self.grid.starts, self.grid
        return np.asarray(before[starts + grid.horizon] > before[starts - grid.lookback])


def repeat_last(dataset: Dataset, values: NDArray[np.float64], horizon: int, lookback: int) -> RepeatLast:
    """Score the repeated last value on every test window.

    Args:
        dataset: Gives the split.
        values: [T, C] in data units, the data set's own or mended ones; standardised by their train rows.
        horizon: Steps H.
        lookback: Context steps L, shortened to what the rows allow.

    Raises:
        TsbenchError: The horizon does not fit the test split.
    """
    borders = split_borders(dataset.split, len(values))
    lookback = min(lookback, borders.train[1] - horizon)
    if lookback < 1:
        raise TsbenchError(
            f"horizon {horizon} is longer than the train rows of {dataset.name}; use a shorter one"
        )
    grid = window_grid(borders, "test", lookback, horizon)
    scaled = Scaler.fit(values[slice(*borders.train)]).transform(values)
    size = max(1, _VALUES_AT_ONCE // (horizon * scaled.shape[1]))
    parts = []
    for first in range(0, len(grid.starts), size):
        starts = grid.starts[first : first + size]
        error = gather_targets(scaled, starts, horizon) - scaled[starts - 1][:, :, None]
        parts.append(
            (np.square(error).mean(axis=2, dtype=np.float64), np.abs(error).mean(axis=2, dtype=np.float64))
        )
    mse, mae = (np.concatenate(column) for column in zip(*parts, strict=True))
    return RepeatLast(borders, grid, mse, mae)


def constant_spans(values: NDArray[np.float64], first: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Whether `length` rows from each of the rows `first` [W] on hold one value: [W, C]."""
    changes = np.concatenate([np.zeros((1, values.shape[1]), dtype=np.int64), np.diff(values, axis=0) != 0])
    before = np.cumsum(changes, axis=0)
    return np.asarray(before[first + length - 1] == before[first])

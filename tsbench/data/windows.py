"""Forecast windows: which ones a split has, and cutting them out of the scaled array."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tsbench.data.splits import Borders
from tsbench.errors import TsbenchError

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class WindowGrid:
    """The windows of one split that are used.

    Attributes:
        split: "train", "val" or "test".
        lookback: Context length L in steps.
        horizon: Target length H in steps.
        stride: Steps between the starts of neighbouring windows.
        starts: [W] int64, the first target row of each window, ascending. The context is rows
            [start - L, start), the target rows [start, start + H).
        total: Windows at stride 1 with none dropped; ``len(starts) / total`` is the coverage.
    """

    split: Split
    lookback: int
    horizon: int
    stride: int
    starts: NDArray[np.int64]
    total: int


def window_grid(
    borders: Borders,
    split: Split,
    lookback: int,
    horizon: int,
    stride: int = 1,
    drop_last: int | None = None,
) -> WindowGrid:
    """List the windows of a split.

    Targets never leave the split. Contexts of train windows lie in the train rows too; those of the
    first validation and test windows reach back into the rows before. So the number of validation and
    test windows is rows - H + 1 whatever the lookback, of train windows rows - L - H + 1.

    Args:
        borders: Row ranges of the splits.
        split: Which split.
        lookback: Context length L in steps.
        horizon: Target length H in steps.
        stride: Use every stride-th window, from the first on.
        drop_last: Batch size b of a loader that drops its last incomplete batch: only the first
            b·floor(W / b) windows are kept. To reproduce tables made that way; never a default, since it
            lets the batch size decide which windows count.

    Raises:
        TsbenchError: A number is below 1 or no window fits.
    """
    numbers = {"lookback": lookback, "horizon": horizon, "stride": stride, "drop-last batch size": drop_last}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise TsbenchError(f"{name} is {number}; it must be at least 1")
    first, end = getattr(borders, split)
    rows = end - first
    if horizon > rows:
        raise TsbenchError(
            f"horizon {horizon} is longer than the {split} split of {rows} rows; use a shorter horizon"
        )
    if split == "train":
        first += lookback
        if first + horizon > end:
            raise TsbenchError(
                f"lookback {lookback} and horizon {horizon} need {lookback + horizon} rows, "
                f"but the train split has {rows}; use a shorter lookback or horizon"
            )
    elif lookback > first:
        raise TsbenchError(
            f"lookback {lookback} is longer than the {first} rows before the {split} split; "
            "use a shorter lookback"
        )
    starts = np.arange(first, end - horizon + 1, stride, dtype=np.int64)
    if drop_last is not None:
        starts = starts[: len(starts) // drop_last * drop_last]
        if not len(starts):
            raise TsbenchError(
                f"dropping the last incomplete batch of {drop_last} leaves no {split} window "
                f"at horizon {horizon}; use a smaller batch or keep the last one"
            )
    return WindowGrid(split, lookback, horizon, stride, starts, total=end - horizon + 1 - first)


def gather_contexts(
    scaled: NDArray[np.float32], starts: NDArray[np.int64], lookback: int
) -> NDArray[np.float32]:
    """Copy out the contexts before the given target rows.

    Args:
        scaled: [T, C] float32.
        starts: [W] int64, first target row of each window, in any order.
        lookback: Context length L in steps.

    Returns:
        [W, C, L] float32, contiguous, oldest step first.

    Raises:
        ValueError: A context reaches outside the array.
    """
    return _cut(scaled, starts - lookback, lookback)


def gather_targets(
    scaled: NDArray[np.float32], starts: NDArray[np.int64], horizon: int
) -> NDArray[np.float32]:
    """Copy out the targets that begin at the given rows: [W, C, H] float32; see `gather_contexts`."""
    return _cut(scaled, starts, horizon)


def _cut(scaled: NDArray[np.float32], first: NDArray[np.int64], length: int) -> NDArray[np.float32]:
    if len(first) and (first.min() < 0 or first.max() + length > len(scaled)):
        raise ValueError(f"windows of {length} rows leave the array of {len(scaled)} rows")
    return np.ascontiguousarray(sliding_window_view(scaled, length, axis=0)[first], dtype=np.float32)


def evenly_spaced(total: int, at_most: int) -> NDArray[np.int64]:
    """Places among `total` items, from the first to the last; all where they are at most `at_most`."""
    return np.unique(np.linspace(0, total - 1, min(total, at_most)).astype(np.int64))

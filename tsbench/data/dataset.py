"""What a loaded data set is: one long multivariate array, or many short series."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsbench.data.splits import SplitRule


@dataclass(frozen=True)
class Dataset:
    """One long multivariate set of series on a common time axis.

    Attributes:
        name: Name in the catalogue, or ``csv-<file stem>`` for the user's own file.
        values: [T, C] float64 in data units, oldest row first, read-only, finite everywhere. Rows are
            those of the source in its order: none is dropped, sorted or repaired.
        timestamps: [T] datetime64[s].
        channels: C names, as in the header of the source.
        freq: Step between rows as a pandas offset alias, such as "1h", "15min", "1D".
        season: Seasonal period in steps, used by the seasonal-naive forecast and by MASE.
        split: How the rows are divided into train, validation and test.
        horizons: Horizons the literature reports, in steps.
        sha256: Checksum that identifies the values: of the source file, or of the generated array.
    """

    name: str
    values: NDArray[np.float64]
    timestamps: NDArray[np.datetime64]
    channels: tuple[str, ...]
    freq: str
    season: int
    split: SplitRule
    horizons: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class SeriesCollection:
    """Many short univariate series with an official test tail (M3, M4).

    Attributes:
        name: Name in the catalogue, such as "M4-Hourly".
        train: N arrays [T_i] float64, oldest value first, read-only.
        test: [N, horizon] float64, the values that follow each train series, read-only.
        ids: N series names in file order, such as "H1" or "N1402".
        freq: pandas offset alias, or "other" where the publisher names no sampling interval.
        season: Seasonal period in steps, as the competition defines it for MASE.
        horizon: Steps to forecast.
        sha256: Checksum that identifies the source files.
    """

    name: str
    train: tuple[NDArray[np.float64], ...]
    test: NDArray[np.float64]
    ids: tuple[str, ...]
    freq: str
    season: int
    horizon: int
    sha256: str

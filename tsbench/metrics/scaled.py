"""Scores of the M competitions, per series, and the mean that counts what it leaves out (NumPy float64)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class DefinedMean:
    """A mean over groups (series, windows or channels) some of which have no defined score."""

    mean: float  # over the defined groups; NaN when there is none
    n_defined: int
    n_undefined: int


def mean_defined(values: ArrayLike) -> DefinedMean:
    """Average the defined scores and count the others.

    Args:
        values: Any shape; NaN marks an undefined score, such as the MASE of a constant series.

    Returns:
        Mean of the values that are not NaN, with both counts.
    """
    scores = np.asarray(values, dtype=np.float64)
    defined = scores[~np.isnan(scores)]
    mean = float(defined.mean()) if defined.size else float("nan")
    return DefinedMean(mean=mean, n_defined=defined.size, n_undefined=scores.size - defined.size)


def seasonal_error(history: ArrayLike, season: int) -> NDArray[np.float64]:
    """Mean absolute error of the seasonal-naive forecast on the history: the scale of MASE and of SQL.

    mean over t of |y_t - y_{t-season}|

    Args:
        history: [T] or [T, C], oldest first: the series before the forecast (never the target).
        season: Steps in a season, 1 or more; 1 compares neighbours.

    Returns:
        [] or [C] float64, in the units of `history`. NaN when T <= season, 0 for a constant series; both
        leave MASE and SQL undefined.

    Raises:
        ValueError: `season` is below 1.

    Source:
        Hyndman and Koehler 2006, doi:10.1016/j.ijforecast.2006.03.001, equation for MASE; season m as in M4.
    """
    if season < 1:
        raise ValueError(f"season must be 1 or more, got {season}")
    values = np.asarray(history, dtype=np.float64)
    if len(values) <= season:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(np.abs(values[season:] - values[:-season]).mean(axis=0))


def mase(y: ArrayLike, forecast: ArrayLike, scale: ArrayLike) -> NDArray[np.float64]:
    """Mean absolute scaled error of each series.

    mean over h of |y_h - forecast_h|, divided by the in-sample `seasonal_error`

    Args:
        y: [N, H] targets.
        forecast: [N, H], same units.
        scale: [N] from `seasonal_error`, same units.

    Returns:
        [N] float64; NaN where the scale is zero or NaN (no epsilon is added: `mean_defined` counts these).

    Source:
        M4 competition rules, with one scale per series. Differs from TFB, which returns -1 when undefined.
    """
    error = np.abs(_difference(y, forecast)).mean(axis=-1)
    divisor = np.asarray(scale, dtype=np.float64)
    if divisor.shape != error.shape:
        raise ValueError(f"scale must have shape {error.shape}, got {divisor.shape}")
    undefined = np.full(error.shape, np.nan)
    return np.asarray(np.divide(error, divisor, out=undefined, where=divisor > 0))


def smape(y: ArrayLike, forecast: ArrayLike) -> NDArray[np.float64]:
    """Symmetric mean absolute percentage error of each series, 0 to 200.

    mean over h of 200 |forecast_h - y_h| / (|forecast_h| + |y_h|), a term 0/0 counting as 0

    Args:
        y: [N, H] targets.
        forecast: [N, H], same units.

    Returns:
        [N] float64, per cent.

    Source:
        M4 competition rules. ProbTS and GluonTS leave out the factor 100 (range 0 to 2).
    """
    error = np.abs(_difference(y, forecast))
    size = np.abs(np.asarray(y, dtype=np.float64)) + np.abs(np.asarray(forecast, dtype=np.float64))
    return np.asarray(200 * np.divide(error, size, out=np.zeros_like(error), where=size > 0).mean(axis=-1))


def owa(smape: float, mase: float, naive2_smape: float, naive2_mase: float) -> float:
    """Overall weighted average of M4: the mean of two ratios to Naive2, below 1 when better than it.

    1/2 (smape / naive2_smape + mase / naive2_mase)

    Args:
        smape: Mean over the group's series, per cent. A group mean: the OWA of M4 is not a mean of
            per-series ratios.
        mase: Mean over the same series.
        naive2_smape: Mean of the official Naive2 forecasts over the same series.
        naive2_mase: Likewise.

    Returns:
        The ratio, as a float.

    Raises:
        ValueError: A Naive2 score is not above zero.

    Source:
        Makridakis, Spiliotis and Assimakopoulos 2020, doi:10.1016/j.ijforecast.2019.04.014.
    """
    if not (naive2_smape > 0 and naive2_mase > 0):
        raise ValueError(f"Naive2 scores must be above zero, got {naive2_smape} and {naive2_mase}")
    return (smape / naive2_smape + mase / naive2_mase) / 2


def _difference(y: ArrayLike, forecast: ArrayLike) -> NDArray[np.float64]:
    """Targets minus forecasts, both [N, H], refusing to broadcast."""
    target, predicted = np.asarray(y, dtype=np.float64), np.asarray(forecast, dtype=np.float64)
    if target.ndim != 2 or target.shape != predicted.shape:
        raise ValueError(f"y and forecast must both be [N, H], got {target.shape} and {predicted.shape}")
    return np.asarray(target - predicted)

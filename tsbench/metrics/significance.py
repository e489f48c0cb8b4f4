"""Is a difference between two forecasts real? Tests over windows that overlap, and for many tests at once."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tsbench.metrics.overlap import mean_error

__all__ = [
    "DieboldMariano",
    "benjamini_hochberg",
    "diebold_mariano",
    "holm",
    "win_rate",
]


@dataclass(frozen=True)
class DieboldMariano:
    """Test of equal expected errors.

    Attributes:
        statistic: Negative where the first forecast has the smaller errors; NaN where nothing is tested.
        p: Two-sided, by Student's t; NaN where nothing is tested.
        lags: Autocovariances in the variance.
        reason: Why nothing is tested; empty where something is.
    """

    statistic: float
    p: float
    lags: int
    reason: str = ""


def diebold_mariano(
    errors: NDArray[np.floating], reference: NDArray[np.floating], block: int
) -> DieboldMariano:
    """Test whether two forecasts have the same expected error, on the same overlapping windows.

    The statistic is the mean of the differences over its standard error, which takes the overlap into
    account: see `mean_error`, also for the degrees of freedom and the size of the test.

    Args:
        errors: [W], windows in time order.
        reference: [W], the same windows.
        block: Windows l beyond which two share no target (`disjoint_block`).

    Returns:
        The test. It has a reason in place of a p-value where the errors are undefined, equal in every window,
        differ by a constant, or where there are fewer than 3 l windows.

    Source:
        Diebold and Mariano (1995), doi:10.1080/07350015.1995.10524599.
    """
    difference = np.asarray(errors, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    error = mean_error(difference, block)
    reason = error.reason
    if not difference.any():
        reason = "equal in every window"
    elif error.standard_error == 0:
        reason = "the difference never varies"
    if reason:
        return DieboldMariano(math.nan, math.nan, error.lags, reason)
    statistic = float(difference.mean()) / error.standard_error
    return DieboldMariano(statistic, float(2 * stats.t.sf(abs(statistic), error.degrees)), error.lags)


def holm(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """Correct p-values of a family so that the chance of any false finding stays below the level.

    Args:
        p: [N]; NaN = not tested, which stays NaN and does not count.

    Returns:
        [N] float64: max over j <= i of min(1, (n - j + 1) p_(j)), in order of p, n being those tested.

    Source: Holm (1979), Scandinavian Journal of Statistics 6(2), 65-70.
    """
    given = np.asarray(p, dtype=np.float64)
    corrected = np.full(len(given), math.nan)
    order = np.argsort(given)[: np.isfinite(given).sum()]  # NaN sorts last
    steps = np.arange(len(order), 0, -1) * given[order]
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def benjamini_hochberg(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """Correct p-values of a family so that the expected share of false findings stays below the level.

    Args:
        p: [N]; NaN = not tested, which stays NaN and does not count.

    Returns:
        [N] float64: min over j >= i of n p_(j) / j, in order of p, n being those tested.

    Source: Benjamini and Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    given = np.asarray(p, dtype=np.float64)
    corrected = np.full(len(given), math.nan)
    tested = np.isfinite(given)
    if tested.any():
        corrected[tested] = stats.false_discovery_control(given[tested], method="bh")
    return corrected


def win_rate(errors: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Share of settings in which the error is smaller than the reference's; a tie counts half.

    Args:
        errors: [N], one per setting.
        reference: [N], the same settings.
    """
    return float(np.mean((np.sign(np.asarray(reference) - np.asarray(errors)) + 1) / 2))

"""Average ranks of methods over data sets: are they told apart at all, and which from which?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["CriticalDifference", "compare_ranks", "nemenyi_difference"]

_LEVEL = 0.05


@dataclass(frozen=True)
class CriticalDifference:
    """What a critical-difference diagram shows.

    Attributes:
        names: K methods, the best average rank first.
        ranks: K average ranks, 1 = the smallest error everywhere.
        data_sets: N ranked over.
        difference: Average ranks less than this apart are not told apart, at 5 %.
        groups: Methods that are not told apart, each group as large as possible, two at least; what stands in
            no common group is told apart.
        statistic: Friedman's chi-square; NaN for fewer than three methods, or where all errors tie.
        p: Of the hypothesis that all methods rank alike.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    data_sets: int
    difference: float
    groups: tuple[tuple[str, ...], ...]
    statistic: float
    p: float


def compare_ranks(names: Sequence[str], errors: NDArray[np.floating]) -> CriticalDifference:
    """Rank methods on each data set and test the average ranks (Friedman, then Nemenyi).

    Args:
        names: K methods, two at least.
        errors: [N, K], a row per data set; ties share the mean of their ranks.

    Source: Demšar (2006), Journal of Machine Learning Research 7, 1-30, Section 3.2.
    """
    ranked = stats.rankdata(errors, axis=1)
    average = ranked.mean(axis=0)
    order = [int(place) for place in np.argsort(average, kind="stable")]
    statistic = p = math.nan
    if len(names) > 2 and np.ptp(ranked) > 0:
        statistic, p = map(float, stats.friedmanchisquare(*np.asarray(errors).T))
    difference = nemenyi_difference(len(names), len(ranked))
    ordered = average[order]
    groups = []
    reached = 1
    for first in range(len(order)):
        end = int(np.searchsorted(ordered, ordered[first] + difference))
        if end - first > 1 and end > reached:
            groups.append(tuple(names[place] for place in order[first:end]))
            reached = end
    return CriticalDifference(
        names=tuple(names[place] for place in order),
        ranks=tuple(float(rank) for rank in ordered),
        data_sets=len(ranked),
        difference=difference,
        groups=tuple(groups),
        statistic=statistic,
        p=p,
    )


def nemenyi_difference(methods: int, data_sets: int) -> float:
    """Least difference of average ranks that Nemenyi's test takes for real, at 5 %.

    q sqrt(K (K + 1) / (6 N)), q being the 95 % quantile of the studentized range of K normal variables over
    sqrt(2).

    Args:
        methods: K, two at least.
        data_sets: N.
    """
    quantile = float(stats.studentized_range.ppf(1 - _LEVEL, methods, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * data_sets))

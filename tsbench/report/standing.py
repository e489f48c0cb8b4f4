"""Methods over data sets: how often they win, their mean change, skill and average rank."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsbench.metrics.bootstrap import Interval, geometric_skill, nested_mean
from tsbench.metrics.ranks import CriticalDifference, compare_ranks
from tsbench.metrics.significance import win_rate
from tsbench.report.cells import Cell, Table
from tsbench.report.comparisons import Comparison, Family, Metric, Scored, Suite, Verdict, interval_text
from tsbench.report.labels import MISSING, row_rank


@dataclass(frozen=True)
class Summary:
    """One method over the data sets of a suite.

    Attributes:
        name: The method.
        cells: Data sets and horizons it has.
        data_sets: Data sets.
        better: Cells with that verdict against Origin; likewise `worse` and, of the others, `undecided`.
        worse: See `better`.
        undecided: See `better`.
        win_rate: Share of cells with a lower error than Origin, ties counting half; NaN without Origin.
        change: Mean change against Origin in percent: over horizons, then over data sets.
        skill: Against the seasonal naive forecast, in percent.
    """

    name: str
    cells: int
    data_sets: int
    better: int
    worse: int
    undecided: int
    win_rate: float
    change: Interval
    skill: Interval


def summaries(suite: Suite, judged: Family) -> list[Summary]:
    """Every method of a suite over its data sets, in the order of tables.

    Args:
        suite: Settings with their rows.
        judged: Its comparisons with Origin.
    """
    rows: dict[str, list[tuple[str, float]]] = defaultdict(list)  # data set, log of its error ratio
    ranks: dict[str, int] = {}
    for setting in suite.settings:
        naive = next((one for one in setting.scored if one.row.spec.backbone == "naive-seasonal"), None)
        for one in setting.scored:
            known = naive is not None and naive.levels == one.levels and naive.errors.any()
            log_ratio = _log_error(one) - _log_error(naive) if naive and known else math.nan
            rows[one.name].append((setting.dataset, log_ratio))
            ranks[one.name] = row_rank(one.row.spec)
    against: dict[str, list[tuple[Comparison, Verdict]]] = defaultdict(list)
    for comparison, found in zip(judged.comparisons, judged.verdicts, strict=True):
        against[comparison.ours.name].append((comparison, found))
    return [
        _summary(name, rows[name], against[name])
        for name in sorted(rows, key=lambda name: (ranks[name], name))
    ]


def _summary(
    name: str, log_ratios: list[tuple[str, float]], against: list[tuple[Comparison, Verdict]]
) -> Summary:
    found = [verdict for _, verdict in against]
    by_dataset: dict[str, list[float]] = defaultdict(list)
    for dataset, log_ratio in log_ratios:
        by_dataset[dataset].append(log_ratio)
    skill = geometric_skill(np.array([math.exp(np.mean(each)) for each in by_dataset.values()]))
    errors = [(one.ours.errors.mean(), one.reference.errors.mean()) for one, _ in against]
    return Summary(
        name=name,
        cells=len(log_ratios),
        data_sets=len(by_dataset),
        better=found.count("better"),
        worse=found.count("worse"),
        undecided=len(found) - found.count("better") - found.count("worse"),
        win_rate=win_rate(*np.array(errors).T) if errors else math.nan,
        change=mean_change([one for one, _ in against]),
        skill=skill,
    )


def _log_error(one: Scored) -> float:
    """Natural logarithm of the mean error; minus infinity where there is none."""
    return math.log(one.errors.mean()) if one.errors.any() else -math.inf


def critical_difference(suite: Suite) -> CriticalDifference | None:
    """Average ranks of the methods that were run on every data set of a suite, for its diagram.

    Ranked on each data set is the geometric mean of the errors over the horizons that all of them have, so
    that a data set counts once, however many horizons it has. CRPS over other levels than that of most rows
    does not take part. None for fewer than two methods or data sets.
    """
    cells: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for setting in suite.settings:
        levels = Counter(one.levels for one in setting.scored).most_common(1)[0][0]
        for one in setting.scored:
            if one.levels == levels:
                cells[one.name][setting.dataset, setting.horizon] = _log_error(one)
    data_sets = list(dict.fromkeys(setting.dataset for setting in suite.settings))
    complete = {
        name: found for name, found in cells.items() if {dataset for dataset, _ in found} == set(data_sets)
    }
    shared = set.intersection(*(set(found) for found in complete.values())) if complete else set()
    if len(complete) < 2 or len(data_sets) < 2 or {dataset for dataset, _ in shared} != set(data_sets):
        return None
    errors = np.array(
        [
            [np.mean([found[cell] for cell in shared if cell[0] == dataset]) for found in complete.values()]
            for dataset in data_sets
        ]
    )
    return compare_ranks(list(complete), errors)


def summary_table(suite: Suite, judged: Family, metric: Metric) -> list[Table]:
    """The summaries with their ranks: one table, or none for a single method."""
    found = summaries(suite, judged)
    if len(found) < 2:
        return []
    ranking = critical_difference(suite)
    ranks = dict(zip(ranking.names, ranking.ranks, strict=True)) if ranking else {}
    name = metric.upper()
    return [
        Table(
            title=f"{name} over data sets · {suite.label}",
            columns=(
                *("Method", "Cells", "Data sets", "Better", "Undecided", "Worse", "Win rate"),
                *(f"Mean Δ{name} %", "Skill %", "Average rank"),
            ),
            rows=tuple(
                (
                    Cell(one.name),
                    Cell(str(one.cells)),
                    Cell(str(one.data_sets)),
                    *(Cell(str(count) if compared else MISSING) for count in counts),
                    Cell(f"{one.win_rate:.2f}" if compared else MISSING),
                    Cell(interval_text(one.change) if compared else MISSING),
                    Cell(interval_text(one.skill)),
                    Cell(f"{ranks[one.name]:.2f}" if one.name in ranks else MISSING),
                )
                for one in found
                for counts in [(one.better, one.undecided, one.worse)]
                for compared in [sum(counts) > 0]
            ),
            notes=(*_summary_notes(), *_rank_notes(ranking)),
            data=tuple(
                {
                    "table": "summary",
                    "metric": metric,
                    "suite": suite.label,
                    "label": one.name,
                    **{key: getattr(one, key) for key in ("cells", "data_sets", "better", "worse")},
                    "undecided": one.undecided,
                    "win_rate": one.win_rate,
                    **_figures("change_percent", one.change),
                    **_figures("skill_percent", one.skill),
                    "average_rank": ranks.get(one.name, math.nan),
                }
                for one in found
            ),
        )
    ]


def mean_change(comparisons: Sequence[Comparison]) -> Interval:
    """Mean change in percent, over the horizons of each data set first, then over data sets.

    The interval is `nested_mean`'s: data sets are drawn, and for each a change from the distribution behind
    its interval, the same place of it at all horizons, whose windows lie in the same rows. NaN bounds for a
    single data set.
    """
    by_dataset: dict[str, list[Comparison]] = defaultdict(list)
    for one in comparisons:
        by_dataset[one.ours.row.spec.dataset].append(one)
    if not by_dataset:
        return Interval(math.nan, math.nan, math.nan)
    values = [np.mean([one.change.value for one in each]) for each in by_dataset.values()]
    draws = [np.mean([one.draws for one in each], axis=0) for each in by_dataset.values()]
    return nested_mean(np.array(values), np.array(draws))


def _figures(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _summary_notes() -> tuple[str, ...]:
    return (
        "Better, undecided, worse: verdicts against Origin, by data set and horizon. Win rate: share of them "
        "with a lower error than Origin, significant or not; ties count half.",
        "Mean change: over horizons, then over data sets. In brackets: 95 % of resampling data sets and "
        "drawing the change on each from the distribution behind its interval.",
        "Skill: 1 - geometric mean of the error over the seasonal naive's, over horizons, then over data "
        "sets; positive is better. In brackets: 95 % of resampling data sets.",
        "Methods with other cells do not compare in mean change and skill.",
    )


def _rank_notes(ranking: CriticalDifference | None) -> tuple[str, ...]:
    if ranking is None:
        return ()
    groups = "; ".join(" ~ ".join(group) for group in ranking.groups)
    return (
        f"Average rank: over {ranking.data_sets} data sets, of methods run on all of them, by the geometric "
        "mean over the horizons they share; 1 is best. "
        f"Friedman p = {ranking.p:.3g}; by Nemenyi, ranks less than {ranking.difference:.2f} apart are not "
        f"told apart at 5 %{': ' + groups if groups else ''}.",
    )

"""What TS-Memory is said to gain, beside what it gains here: α from validation, and from the test split."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tsbench.bench.store import ResultsStore
from tsbench.metrics.bootstrap import Interval
from tsbench.metrics.overlap import percent_change
from tsbench.report.cells import Cell, Table
from tsbench.report.comparisons import Comparison, Family, Metric, control, interval_text, same_cell
from tsbench.report.labels import ALPHA, MISSING, is_transfer, spread
from tsbench.report.published import published
from tsbench.report.standing import mean_change

CLAIMED = {"mse": -5.8, "mae": -2.1}
"""Mean change in percent over four backbones and eight data sets (arXiv 2602.11550, Section 5.2)."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A TS-Memory cell against its backbone alone, by who chose the fusion weight.

    Attributes:
        comparison: With the weight chosen on validation.
        control: The no-retrieval control on the same windows, its weight chosen on validation; None where
            there is none.
        alpha: Weight chosen on validation, at each seed.
        oracle_alpha: Weight with the lowest error on the test split, at each seed.
        oracle_change: Change in percent with that weight, mean over seeds: never above zero, for the grid
            holds 0, the backbone alone. NaN where no curve was stored.
    """

    comparison: Comparison
    control: Comparison | None
    alpha: tuple[float, ...]
    oracle_alpha: tuple[float, ...]
    oracle_change: float


def claims(judged: Family, store: ResultsStore, metric: Metric) -> list[Claim]:
    """TS-Memory as proposed, cell by cell; ablations and modules carried from elsewhere are left out.

    Args:
        judged: A suite's comparisons with Origin.
        store: Where the scores against the fusion weight are.
        metric: Score of the comparisons, which also chooses the oracle's weight, as the script of the
            authors' code for single data sets does by MSE.
    """
    found = []
    for one in judged.comparisons:
        row, options = one.ours.row, one.ours.row.spec.options
        if options is None or options.ablation != "none" or is_transfer(row.spec):
            continue
        twin = control(same_cell(row.spec))
        curves = [loaded.curves for r in row.records if (loaded := store.load(r.key)) and loaded.curves]
        best = [int(np.argmin(curve.test[metric])) for curve in curves]
        changes = [
            percent_change(curve.test[metric][place], curve.test[metric][0])
            for curve, place in zip(curves, best, strict=True)
        ]
        found.append(
            Claim(
                comparison=one,
                control=next((c for c in judged.comparisons if same_cell(c.ours.row.spec) == twin), None),
                alpha=tuple(r.alpha for r in row.records if r.alpha is not None),
                oracle_alpha=tuple(float(c.alpha[place]) for c, place in zip(curves, best, strict=True)),
                oracle_change=float(np.mean(changes)) if changes else math.nan,
            )
        )
    return found


def published_changes(metric: Metric) -> dict[str, dict[str, float]]:
    """Change by TS-Memory in percent that Table 2 of the paper prints, by data set and backbone.

    From the printed means over horizons; empty for CRPS, which that table does not have.
    """
    values = {
        (figure.dataset, figure.backbone, figure.method): float(figure.value)
        for figure in published()
        if (figure.paper, figure.table, figure.horizon, figure.metric) == ("ts-memory", 2, "avg", metric)
    }
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (dataset, backbone, method), value in values.items():
        if method == "ts-memory":
            found[dataset][backbone] = 100 * (value / values[dataset, backbone, "origin"] - 1)
    return dict(found)


def claim_tables(suite: str, found: Sequence[Claim], metric: Metric) -> list[Table]:
    """Cell by cell, then on average beside the paper's figure: two tables, or none without TS-Memory.

    Args:
        suite: Label of the suite the claims are of.
        found: Its claims.
        metric: Their score.
    """
    if not found:
        return []
    return [_cell_table(suite, found, metric), _mean_table(suite, found, metric)]


def _cell_table(suite: str, found: Sequence[Claim], metric: Metric) -> Table:
    change = f"Δ{metric.upper()} %"
    printed = {dataset: _mean(each.values()) for dataset, each in published_changes(metric).items()}
    return Table(
        title=f"TS-Memory by choice of {ALPHA}, {metric.upper()} · {suite}",
        columns=(
            *("Data set", "H", "Method", f"{ALPHA} (val)", f"{change} (val)"),
            *(f"{ALPHA} (test)", f"{change} (test)", "Control", "Paper"),
        ),
        rows=tuple(
            (
                Cell(claim.comparison.ours.row.spec.dataset),
                Cell(str(claim.comparison.ours.row.spec.horizon)),
                Cell(claim.comparison.ours.name),
                Cell(spread(claim.alpha, ".2f")),
                Cell(interval_text(claim.comparison.change)),
                Cell(spread(claim.oracle_alpha, ".2f")),
                Cell(spread([claim.oracle_change], "+.1f")),
                Cell(interval_text(claim.control.change) if claim.control else MISSING),
                Cell(spread([printed.get(claim.comparison.ours.row.spec.dataset, math.nan)], "+.1f")),
            )
            for claim in found
        ),
        notes=(
            f"(test): {ALPHA} with the lowest {metric.upper()} on the test split, the default of the "
            "authors' code; it cannot lose to the backbone, so it is a bound, not a result.",
            f"Control: the no-retrieval control on the same windows, {ALPHA} by validation.",
            "Paper: mean over its four backbones, from Table 2's means over four horizons.",
        ),
        data=tuple(
            {
                "table": "claim",
                "metric": metric,
                "suite": suite,
                "label": claim.comparison.ours.name,
                "dataset": claim.comparison.ours.row.spec.dataset,
                "horizon": claim.comparison.ours.row.spec.horizon,
                "change_percent": claim.comparison.change.value,
                "low": claim.comparison.change.low,
                "high": claim.comparison.change.high,
                "oracle_change_percent": claim.oracle_change,
                "control_change_percent": claim.control.change.value if claim.control else math.nan,
            }
            for claim in found
        ),
    )


def _mean_table(suite: str, found: Sequence[Claim], metric: Metric) -> Table:
    printed = {dataset: _mean(each.values()) for dataset, each in published_changes(metric).items()}
    lines: list[tuple[str, str, Interval]] = []
    if metric in CLAIMED:
        lines.append(("Paper's text: four backbones", "8", _bare(CLAIMED[metric])))
    by_name: dict[str, list[Claim]] = defaultdict(list)
    for claim in found:
        by_name[claim.comparison.ours.name].append(claim)
    for name, own in by_name.items():
        data_sets = list(dict.fromkeys(claim.comparison.ours.row.spec.dataset for claim in own))
        cells = f"{len(data_sets)} ({len(own)} cells)"
        shared = [printed[dataset] for dataset in data_sets if dataset in printed]
        if shared:
            lines.append((f"Paper's Table 2, data sets of {name}", str(len(shared)), _bare(_mean(shared))))
        lines.append((f"{name}, {ALPHA} by validation", cells, mean_change([one.comparison for one in own])))
        lines.append((f"{name}, {ALPHA} by test (bound)", cells, _bare(_oracle_mean(own))))
        controls = [claim.control for claim in own if claim.control]
        if len(controls) == len(own):
            lines.append((f"Control of {name}, {ALPHA} by validation", cells, mean_change(controls)))
    return Table(
        title=f"TS-Memory's claim, mean change of the {metric.upper()} in percent · {suite}",
        columns=("Source", "Data sets", f"Mean Δ{metric.upper()} %"),
        rows=tuple((Cell(source), Cell(cells), Cell(interval_text(mean))) for source, cells, mean in lines),
        notes=(
            "Means over horizons, then over data sets. In brackets: 95 % of resampling data sets and "
            "drawing the change on each from the distribution behind its interval.",
            "The paper's figures are its authors', on other backbones and always four horizons.",
        ),
        data=tuple(
            {
                "table": "claim on average",
                "metric": metric,
                "suite": suite,
                "label": source,
                "data_sets": cells,
                "change_percent": mean.value,
                "low": mean.low,
                "high": mean.high,
            }
            for source, cells, mean in lines
        ),
    )


def _oracle_mean(own: Sequence[Claim]) -> float:
    by_dataset: dict[str, list[float]] = defaultdict(list)
    for claim in own:
        by_dataset[claim.comparison.ours.row.spec.dataset].append(claim.oracle_change)
    return _mean([_mean(each) for each in by_dataset.values()])


def _bare(value: float) -> Interval:
    """A figure without an interval."""
    return Interval(value, math.nan, math.nan)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))

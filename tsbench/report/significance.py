"""Tables of differences with their uncertainty: which are real, how large on average, and what is claimed."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from tsbench.bench.columns import certificate
from tsbench.bench.records import Record
from tsbench.bench.store import ResultsStore
from tsbench.errors import TsbenchError
from tsbench.metrics.overlap import LAGS_PER_BLOCK, MIN_BLOCKS
from tsbench.report.cells import Cell, Table
from tsbench.report.claims import claim_tables, claims
from tsbench.report.comparisons import (
    LEVEL,
    Comparison,
    Family,
    Metric,
    Reference,
    Suite,
    bounds_text,
    family,
    suites,
)
from tsbench.report.labels import MISSING
from tsbench.report.standing import summary_table

_AGAINST = {"origin": "Origin", "control": "the method's control"}


@dataclass(frozen=True, eq=False)
class JudgedSuite:
    """A suite with its verdicts.

    Attributes:
        suite: What may be compared.
        metric: Score of the comparisons.
        origin: Comparisons with Origin.
        control: Comparisons with each method's control.
        refused: What is not compared, and why.
    """

    suite: Suite
    metric: Metric
    origin: Family
    control: Family
    refused: tuple[str, ...]


def judge(records: Iterable[Record], store: ResultsStore, metric: Metric) -> Iterator[JudgedSuite]:
    """Compare what may be compared, suite by suite; arguments and errors as for `suites`."""
    for suite in suites(records, store, metric):
        origin, refused = family(suite, "origin")
        control, also_refused = family(suite, "control")
        yield JudgedSuite(suite, metric, origin, control, (*suite.refused, *refused, *also_refused))


def judged_tables(judged: JudgedSuite, store: ResultsStore) -> list[Table]:
    """The tables of one suite: comparisons, methods over data sets, claims; what was refused in the first."""
    suite, metric = judged.suite, judged.metric
    own = [
        *_comparison_table(suite, judged.origin, metric, "origin"),
        *_comparison_table(suite, judged.control, metric, "control"),
        *summary_table(suite, judged.origin, metric),
        *claim_tables(suite.label, claims(judged.origin, store, metric), metric),
    ]
    left_out = [f"Refused: {reason}" for reason in judged.refused]
    return [replace(one, notes=(*one.notes, *left_out)) for one in own[:1]] + own[1:]


def significance_tables(records: Iterable[Record], store: ResultsStore, metric: Metric) -> list[Table]:
    """Every comparison with its test and verdict, methods over data sets, and TS-Memory's claim.

    Args:
        records: Chosen cells; what they are compared with must be among them.
        store: Where their windows are.
        metric: Which errors.

    Raises:
        TsbenchError: Nothing can be compared, or a file is damaged.
    """
    tables = [table for judged in judge(records, store, metric) for table in judged_tables(judged, store)]
    if not tables:
        raise TsbenchError(
            "nothing to compare: the chosen results lack Origin on the same backbone and windows, or their "
            "windows' errors; choose more with --select"
        )
    return tables


def _comparison_table(suite: Suite, judged: Family, metric: Metric, against: Reference) -> list[Table]:
    if not judged.comparisons:
        return []
    listed = list(zip(judged.comparisons, judged.p_holm, judged.p_bh, judged.verdicts, strict=True))
    return [
        Table(
            title=f"{metric.upper()} against {_AGAINST[against]} · {suite.label}",
            columns=(
                *("Data set", "H", "Windows", "Method", f"Δ{metric.upper()} %", "95 % interval"),
                *("p", "Holm p", "Verdict"),
            ),
            rows=tuple(
                (
                    Cell(one.ours.row.spec.dataset),
                    Cell(str(one.ours.row.spec.horizon)),
                    Cell(_windows(one)),
                    Cell(one.ours.name),
                    Cell(_change(one)),
                    Cell(bounds_text(one.change) or MISSING),
                    Cell(_p(one.test.p)),
                    Cell(_p(p_holm)),
                    Cell(found),
                )
                for one, p_holm, _, found in listed
            ),
            notes=_comparison_notes(judged),
            data=tuple(
                {
                    "table": "comparison",
                    "metric": metric,
                    "against": one.reference.name,
                    "label": one.ours.name,
                    "change_percent": one.change.value,
                    "low": one.change.low,
                    "high": one.change.high,
                    "dm_statistic": one.test.statistic,
                    "p": one.test.p,
                    "p_holm": p_holm,
                    "p_bh": p_bh,
                    "family": judged.tested,
                    "verdict": found,
                    "reason": one.test.reason,
                    **certificate(record),
                }
                for one, p_holm, p_bh, found in listed
                for record in one.ours.row.records
            ),
        )
    ]


def _comparison_notes(judged: Family) -> tuple[str, ...]:
    comparisons = judged.comparisons
    same, untested = judged.verdicts.count("same forecast"), judged.verdicts.count("not tested")
    others = [
        f"{count} {what}" for count, what in ((same, "same forecasts"), (untested, "not tested")) if count
    ]
    left_out = f"; {' and '.join(others)} do not count" if others else ""
    blocks = [len(one.ours.start) / one.block for one in comparisons]
    return (
        "Change of the mean error on identical test windows, in percent; negative is better. p: "
        f"Diebold-Mariano, variance by Newey-West with {LAGS_PER_BLOCK} blocks of lags, half the windows at "
        "most, correction of Harvey, Leybourne and Newbold. 95 % interval: the same standard error as the "
        "test's, for the ratio of the two means (delta method). Neither below "
        f"{MIN_BLOCKS} blocks, a block being as long as windows share targets; here "
        f"{min(blocks):.3g} to {max(blocks):.3g}.",
        f"Holm p: corrected for the family, all {judged.tested} tests of this table{left_out}.",
        f"Verdict: better or worse where Holm p < {LEVEL} and the interval is on one side of zero; otherwise "
        "inside the noise. Same forecast: equal in every window. Not tested: no p.",
        "Seeds: errors are averaged over seeds window by window before the test; ±: standard deviation."
        if any(len(one.by_seed) > 1 for one in comparisons)
        else "One seed: how much another training run would differ is not in the interval.",
    )


def _windows(comparison: Comparison) -> str:
    record = comparison.ours.row.records[0]
    return f"{record.windows} of {record.windows_total}"


def _change(comparison: Comparison) -> str:
    """The change of the mean error, with its spread over seeds."""
    if not math.isfinite(comparison.change.value):
        return MISSING
    several = f" ± {np.std(comparison.by_seed, ddof=1):.1f}" if len(comparison.by_seed) > 1 else ""
    return f"{comparison.change.value:+.1f}{several}"


def _p(p: float) -> str:
    if not math.isfinite(p):
        return MISSING
    return f"{p:.3f}" if p >= 0.001 else "<0.001"

"""Rows of the page's score tables: a cell at all its seeds, its scores, its gains with their verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tsbench.bench.records import Record
from tsbench.report.comparisons import Metric, Verdict, interval_text
from tsbench.report.labels import is_leak, of_collection, setting_label
from tsbench.report.significance import JudgedSuite
from tsbench.report.tables import Row, common_levels, comparable_rows, contenders, records_of, score_cells

LONG: tuple[Metric, ...] = ("mse", "mae", "crps")
COLLECTION = ("smape", "mase", "owa")


@dataclass(frozen=True)
class Gain:
    """Change against the same backbone alone.

    Attributes:
        text: In percent with its 95 % interval, negative is better.
        value: The change alone.
        verdict: What the comparison allows to say.
    """

    text: str
    value: float
    verdict: Verdict


@dataclass(frozen=True)
class Score:
    """One score of a row.

    Attributes:
        metric: Its name.
        text: Mean and standard deviation over seeds, "–" where there is none.
        value: The mean; NaN where there is none.
        best: Whether it is the lowest, as printed, of the rows it compares with; ties are.
        second: Whether it is the second lowest; of two rows none is.
        gain: Of adapted rows that were compared with their backbone alone.
    """

    metric: str
    text: str
    value: float
    best: bool
    second: bool
    gain: Gain | None


@dataclass(frozen=True)
class ScoreRow:
    """A row of a score table.

    Attributes:
        row: The cell at all its seeds.
        setting: What it shares with the rows it compares with.
        leak: Whether something was chosen on the test split.
        scores: In the order of the columns.
    """

    row: Row
    setting: str
    leak: bool
    scores: tuple[Score, ...]


Gains = Mapping[tuple[str, str], Gain]
"""By key of the record and metric."""


def gains(judged: Iterable[JudgedSuite]) -> Gains:
    """The change of every adapted cell against its backbone alone."""
    return {
        (record.key, suite.metric): Gain(interval_text(one.change), one.change.value, verdict)
        for suite in judged
        for one, verdict in zip(suite.origin.comparisons, suite.origin.verdicts, strict=True)
        for record in one.ours.row.records
    }


def score_rows(records: Sequence[Record], found: Gains) -> tuple[list[ScoreRow], list[ScoreRow]]:
    """Every cell once, those that compare beneath each other.

    Args:
        records: Chosen cells.
        found: Their changes.

    Returns:
        Rows of long data sets with the scores LONG, and of collections with the scores COLLECTION.
    """
    long: list[ScoreRow] = []
    collection: list[ScoreRow] = []
    for rows in comparable_rows(records):
        members = records_of(rows)
        first = members[0]
        metrics: tuple[str, ...] = COLLECTION if of_collection(first) else LONG
        columns = [_scores(rows, metric, found) for metric in metrics]
        levels = common_levels(rows)
        (collection if of_collection(first) else long).extend(
            ScoreRow(row, setting_label(members, levels), is_leak(row.spec), scores)
            for row, *scores_of_row in zip(rows, *columns, strict=True)
            for scores in [tuple(scores_of_row)]
        )
    return long, collection


def _scores(rows: list[Row], metric: str, found: Gains) -> list[Score]:
    compared = contenders(rows, metric)
    lowest = sorted(set(compared.values()))
    second = lowest[1] if len(compared) > 2 and len(lowest) > 1 else None
    return [
        Score(
            metric,
            cell.text,
            float(np.mean(row.values(metric))),
            cell.best,
            second is not None and compared.get(place) == second,
            found.get((row.records[0].key, metric)),
        )
        for place, (row, cell) in enumerate(zip(rows, score_cells(rows, metric), strict=True))
    ]

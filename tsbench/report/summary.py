"""One row per data set: the methods of a suite side by side in one score."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from tsbench.bench.records import Record
from tsbench.report.labels import MISSING, backbone_label, method_label, row_rank
from tsbench.report.tables import Cell, Row, Table, comparable_rows, score_cells

Score = Literal["mse", "mae", "crps"]


def summary_tables(records: Iterable[Record], score: Score) -> list[Table]:
    """Data sets by methods, one table per horizon, lookback, profile and device.

    Every row is a setting whose cells compare (`comparison_tables` has the same rows in full); the windows
    scored stand beside it. The best of a row is bold. A method that was not run there is missing, not
    imputed.

    Args:
        records: Any records.
        score: Which score to show.
    """
    suites: dict[tuple[str, ...], list[list[Row]]] = defaultdict(list)
    for rows in comparable_rows(records):
        spec, made = rows[0].spec, rows[0].records[0].provenance
        suite = f"H = {spec.horizon}, L = {spec.lookback}", f"profile {spec.profile}", made.device
        suites[suite].append(rows)
    return [_suite_table(suite, settings, score) for suite, settings in suites.items()]


def _suite_table(suite: tuple[str, ...], settings: list[list[Row]], score: Score) -> Table:
    ranks = {_name(row): row_rank(row.spec) for rows in settings for row in rows}
    names = sorted(ranks, key=lambda name: (ranks[name], name))
    shown = tuple(_setting_row(rows, names, score) for rows in settings)
    complete = all(cell.text != MISSING for row in shown for cell in row)
    return Table(
        title=" · ".join((score.upper(), *suite)),
        columns=("Data set", "Windows", *names),
        rows=shown,
        notes=() if complete else (f"{MISSING}: not run.",),
    )


def _setting_row(rows: list[Row], names: list[str], score: Score) -> tuple[Cell, ...]:
    first = rows[0].records[0]
    shown = dict(zip((_name(row) for row in rows), score_cells(rows, score), strict=True))
    return (
        Cell(first.spec.dataset),
        Cell(f"{first.windows} of {first.windows_total}"),
        *(shown.get(name, Cell(MISSING)) for name in names),
    )


def _name(row: Row) -> str:
    """Method, and the backbone unless it is the method."""
    label = method_label(row.spec)
    return label if row_rank(row.spec) < 2 else f"{label} ({backbone_label(row.spec)})"

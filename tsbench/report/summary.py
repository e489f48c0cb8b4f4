"""One row per data set: the methods of a suite side by side in one score."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from tsbench.bench.provenance import score_device
from tsbench.bench.records import Record
from tsbench.config import TRANSFERS, WHOLE_SERIES
from tsbench.report.cells import Cell, Table
from tsbench.report.labels import (
    MISSING,
    backbone_label,
    devices_label,
    is_baseline,
    of_collection,
    row_rank,
)
from tsbench.report.tables import Row, comparable_rows, records_of, score_cells

Score = Literal["mse", "mae", "crps", "smape", "mase", "owa"]


def summary_tables(records: Iterable[Record], score: Score) -> list[Table]:
    """Data sets by methods, one table per horizon, lookback, profile and device; one for all collections.

    Every row is a setting whose cells compare (`comparison_tables` has all of them in full); the windows
    scored stand beside it. Where a data set has several settings, such as two test strides, the row is the
    one with the most methods, then the most windows, and a note says so. The best of a row is bold. A
    method that was not run there is missing, not imputed.

    Args:
        records: Any records; those without the score are left out.
        score: Which score to show: mase and owa are of collections (M3, M4), mse, mae and crps of long data
            sets.
    """
    suites: dict[tuple[str, ...], list[list[Row]]] = defaultdict(list)
    for rows in comparable_rows(record for record in records if score in record.metrics):
        spec, first = rows[0].spec, rows[0].records[0]
        steps = "official horizons" if of_collection(first) else f"H = {spec.horizon}, L = {spec.lookback}"
        suites[steps, f"profile {spec.profile}", score_device(first.provenance.device)].append(rows)
    return [_suite_table((steps, profile), found, score) for (steps, profile, _), found in suites.items()]


def _fullest(settings: list[list[Row]]) -> list[list[Row]]:
    """One setting per data set: that with the most methods, then the most windows."""
    by_dataset: dict[str, list[list[Row]]] = defaultdict(list)
    for rows in settings:
        by_dataset[rows[0].spec.dataset].append(rows)
    return [
        max(found, key=lambda rows: (len(rows), rows[0].records[0].windows)) for found in by_dataset.values()
    ]


def _suite_table(suite: tuple[str, ...], every_setting: list[list[Row]], score: Score) -> Table:
    settings = _fullest(every_setting)
    ranks = {_name(row): row_rank(row.spec) for rows in settings for row in rows}
    names = sorted(ranks, key=lambda name: (ranks[name], name))
    shown = tuple(_setting_row(rows, names, score) for rows in settings)
    complete = all(cell.text != MISSING for row in shown for cell in row)
    devices = devices_label(record for rows in settings for record in records_of(rows))
    notes = [] if complete else [f"{MISSING}: not run."]
    if len(settings) < len(every_setting):
        notes.append("Some data sets were also run on other windows; `tsbench report` shows every setting.")
    return Table(
        title=" · ".join((score.upper(), *suite, devices)),
        columns=("Data set", "Series" if of_collection(settings[0][0].records[0]) else "Windows", *names),
        rows=shown,
        notes=tuple(notes),
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
    """Method, and the backbone unless it is the method; on a collection a lookback that was asked for."""
    spec = row.spec
    label = row.label
    if of_collection(row.records[0]):
        default = TRANSFERS[spec.dataset].lookback if spec.train_dataset else WHOLE_SERIES
        label += f", L = {spec.lookback}" if spec.lookback != default else ""
    return label if is_baseline(spec) else f"{label} ({backbone_label(spec)})"

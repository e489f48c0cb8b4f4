"""Tables of results: only cells whose scores compare stand in one table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsbench.bench.columns import certificate
from tsbench.bench.provenance import score_device
from tsbench.bench.records import Failure, Record
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec
from tsbench.errors import TsbenchError
from tsbench.metrics.overlap import percent_change
from tsbench.report.cells import Cell, Table
from tsbench.report.labels import (
    ALPHA,
    MISSING,
    OTHER_LEVELS,
    backbone_label,
    collection_notes,
    is_leak,
    lookback_label,
    method_label,
    notes,
    of_collection,
    row_rank,
    setting_label,
    spread,
    unlike_in_precision,
)
from tsbench.report.published import PublishedRow, counterpart, published_rows, published_smape
from tsbench.report.select import select


@dataclass(frozen=True)
class Row:
    """One cell at all its seeds.

    Attributes:
        records: One per seed.
        with_precision: Whether its name says its precision, since others differ from it in that alone.
    """

    records: tuple[Record, ...]
    with_precision: bool = False

    @property
    def spec(self) -> CellSpec:
        """The cell, at the first seed."""
        return self.records[0].spec

    @property
    def weights(self) -> tuple[str, str, str | None, str]:
        """The frozen backbone it stands on."""
        spec = self.spec
        return spec.backbone, spec.rollout, spec.checkpoint, self.records[0].provenance.backbone_identity

    def values(self, metric: str) -> list[float]:
        """The metric at each seed; NaN where it is missing."""
        return [record.metrics.get(metric, np.nan) for record in self.records]

    @property
    def label(self) -> str:
        """The method, as tables call it."""
        return method_label(self.spec, with_precision=self.with_precision)

    def names(self) -> tuple[Cell, Cell]:
        """The first two columns of every table."""
        return Cell(self.label), Cell(backbone_label(self.spec))

    def alpha(self) -> Cell:
        """Fusion weight and the split it was chosen on."""
        weights = [record.alpha for record in self.records if record.alpha is not None]
        if not weights:
            return Cell(MISSING)
        policy = self.spec.options.alpha_policy if self.spec.options else "val"
        return Cell(f"{spread(weights, '.2f')} ({policy})")


def report_tables(store: ResultsStore, expression: str = "", *, with_published: bool = False) -> list[Table]:
    """Make every table of a results folder: comparisons, diagnostics, failed cells.

    Args:
        store: Where the results are.
        expression: Which cells, see `select`; empty for all.
        with_published: Put what papers print below our rows, see `comparison_tables`.

    Raises:
        TsbenchError: There are no results, none is selected, or a file is damaged.
    """
    chosen, failed = stored_cells(store, expression)
    comparisons = comparison_tables(chosen, with_published=with_published)
    return [*comparisons, *diagnostics_tables(chosen), *failure_tables(failed)]


def stored_cells(store: ResultsStore, expression: str = "") -> tuple[list[Record], list[Failure]]:
    """The selected records and failures of a results folder; arguments and errors as for `report_tables`."""
    records, failures = store.records(), store.failures()
    if not records and not failures:
        raise TsbenchError(f"no results in {store.root}/; run `tsbench run` first")
    chosen, failed = select(records, expression), select(failures, expression)
    if not chosen and not failed:
        raise TsbenchError(f"none of {len(records)} results matches '{expression}'; see them all without it")
    return chosen, failed


def comparison_tables(records: Iterable[Record], *, with_published: bool = False) -> list[Table]:
    """Scores of methods side by side, one table per setting.

    Records that differ in data, windows, profile, lookback or horizon, or in the GPU, never share a table.
    Seeds of
    one cell share a row. Of several records of one cell and seed (an older protocol, or with and without
    sampled paths) the newest counts. The best of a column is the smallest mean as printed, ties included;
    rows that leak, and CRPS over other levels than that of most rows, do not take part.

    Collections (M3, M4) have tables of SMAPE, MASE and OWA, in which lookbacks may differ: what is forecast
    is the same.

    Args:
        records: Any records.
        with_published: Put what papers print below our rows, marked as such and without part in the best.
            Notes say by how much our rows differ from the same method and backbone in print.
    """
    tables = []
    for rows in comparable_rows(records):
        if of_collection(rows[0].records[0]):
            tables.append(_collection_table(rows, with_published))
        else:
            table = _comparison(rows)
            tables.append(_with_published(table, rows) if with_published else table)
    return tables


def _comparison(rows: list[Row]) -> Table:
    members = records_of(rows)
    common = common_levels(rows)
    origin_mse = {
        row.weights: float(np.mean(row.values("mse"))) for row in rows if row.spec.method == "origin"
    }
    scores = [score_cells(rows, metric) for metric in ("mse", "mae", "crps")]
    return Table(
        title=setting_label(members, common),
        columns=("Method", "Backbone", "MSE", "MAE", "CRPS", "Cov80", "Width", "ΔMSE %", ALPHA, "Seeds"),
        rows=tuple(
            (
                *row.names(),
                *in_row,
                Cell(spread(row.values("coverage_80"))),
                Cell(spread(row.values("width_80"))),
                Cell(spread([_change(row, float(np.mean(row.values("mse"))), origin_mse)], "+.2f")),
                row.alpha(),
                Cell(str(len(row.records))),
            )
            for row, *in_row in zip(rows, *scores, strict=True)
        ),
        notes=notes(members, common),
        data=tuple(
            {
                "label": row.label,
                "leak": is_leak(row.spec),
                "delta_mse_percent": _change(row, record.metrics.get("mse", np.nan), origin_mse),
                **record.metrics,
                **record.costs,
                **certificate(record),
            }
            for row in rows
            for record in row.records
        ),
    )


def _collection_table(rows: list[Row], with_published: bool) -> Table:
    members = records_of(rows)
    scores = [score_cells(rows, metric) for metric in ("smape", "mase", "owa")]
    printed = published_smape(rows[0].spec.dataset) if with_published else {}
    figures = ", ".join(f"{method} {smape}" for method, smape in printed.items())
    return Table(
        title=setting_label(members, ()),
        columns=("Method", "Backbone", "L", "SMAPE", "MASE", "OWA", "Seeds"),
        rows=tuple(
            (*row.names(), Cell(lookback_label(row.spec)), *in_row, Cell(str(len(row.records))))
            for row, *in_row in zip(rows, *scores, strict=True)
        ),
        notes=(
            *collection_notes(members),
            *([f"Published SMAPE, zero-shot from the other competition: {figures}."] if printed else []),
        ),
        data=tuple(
            {
                "label": row.label,
                "leak": False,
                **record.metrics,
                **record.costs,
                **certificate(record),
            }
            for row in rows
            for record in row.records
        ),
    )


def _with_published(table: Table, rows: list[Row]) -> Table:
    """The table of these rows, with what papers print for its setting below them."""
    setting = rows[0].spec.model_dump(include={"dataset", "horizon", "lookback"})
    printed = published_rows(**setting)
    if not printed:
        return replace(table, notes=(*table.notes, "Published: nothing for this data set, H and L."))
    twins = [(row, counterpart(row.spec, printed)) for row in rows]
    deviations = [
        twin.deviations(record.metrics) if twin else {} for row, twin in twins for record in row.records
    ]
    blank = (Cell(MISSING),) * (len(table.columns) - 4)
    return replace(
        table,
        rows=(
            *table.rows,
            *(
                (Cell(row.label), Cell(row.backbone), Cell(str(row.mse)), Cell(str(row.mae)), *blank)
                for row in printed
            ),
        ),
        notes=(
            *table.notes,
            "Published: MSE and MAE as the authors print them, on their windows and settings; never best.",
            *(_deviation_note(row, twin) for row, twin in twins if twin),
        ),
        data=(
            *(measured | found for measured, found in zip(table.data, deviations, strict=True)),
            *(setting | row.figures() for row in printed),
        ),
    )


def _deviation_note(row: Row, twin: PublishedRow) -> str:
    by_seed = [twin.deviations(record.metrics).values() for record in row.records]
    mse, mae = (spread(percents, "+.2f") for percents in zip(*by_seed, strict=True))
    method, backbone = row.names()
    return f"{method.text} on {backbone.text} differs from {twin.source} by MSE {mse} %, MAE {mae} %."


def common_levels(rows: list[Row]) -> tuple[float, ...]:
    """The quantile levels of most records; empty where all are point forecasts."""
    levels = Counter(record.levels for row in rows for record in row.records if record.levels).most_common(1)
    return levels[0][0] if levels else ()


def contenders(rows: list[Row], metric: str) -> dict[int, float]:
    """Means, as printed, of the comparable rows that may be best, by their place.

    Rows that leak, and CRPS over other levels than that of most rows, do not take part.
    """
    levels = common_levels(rows)
    found: dict[int, float] = {}
    for place, row in enumerate(rows):
        printed = spread([float(np.mean(row.values(metric)))])
        if printed != MISSING and not _other_levels(row, metric, levels) and not is_leak(row.spec):
            found[place] = float(printed)
    return found


def score_cells(rows: list[Row], metric: str) -> list[Cell]:
    """One score of comparable rows with the best marked; CRPS over other levels than most carries a mark."""
    levels, compared = common_levels(rows), contenders(rows, metric)
    lowest = min(compared.values(), default=None)
    return [
        Cell(
            spread(row.values(metric)) + (OTHER_LEVELS if _other_levels(row, metric, levels) else ""),
            best=len(compared) > 1 and compared.get(place) == lowest,
        )
        for place, row in enumerate(rows)
    ]


def _other_levels(row: Row, metric: str, levels: tuple[float, ...]) -> bool:
    return metric == "crps" and row.records[0].levels not in ((), levels)


def _change(row: Row, mse: float, origin_mse: dict[Any, float]) -> float:
    """Percent by which the MSE differs from that of Origin; NaN where that is missing, or for Origin."""
    if row.spec.method == "origin" or row.weights not in origin_mse:
        return float("nan")
    return percent_change(mse, origin_mse[row.weights])


_DIAGNOSTICS = (  # heading, metric, format; None for four significant digits
    ("Teacher MAE train", "teacher_mae_train", None),
    ("Base MAE train", "base_mae_train", None),
    ("Gate open train", "gate_open_train", ".2f"),
    ("Confidence train", "confidence_mean_train", ".2f"),
    ("Teacher MAE val", "teacher_mae_val", None),
    ("Base MAE val", "base_mae_val", None),
    ("Gate open val", "gate_open_val", ".2f"),
    (f"Oracle {ALPHA}", "oracle_alpha", ".2f"),
    ("Oracle MSE", "oracle_mse", None),
    ("Oracle MAE", "oracle_mae", None),
    ("Oracle CRPS", "oracle_crps", None),
    ("Steps", "steps_trained", ".0f"),
)


def diagnostics_tables(records: Iterable[Record]) -> list[Table]:
    """How fused methods came to their scores: the retrieved beside the base, and α beside the oracle's."""
    return [
        Table(
            title=f"Diagnostics · {setting_label(records_of(rows), rows[0].records[0].levels)}",
            columns=("Method", "Backbone", ALPHA, *(heading for heading, _, _ in _DIAGNOSTICS)),
            rows=tuple(
                (
                    *row.names(),
                    row.alpha(),
                    *(Cell(spread(row.values(metric), form)) for _, metric, form in _DIAGNOSTICS),
                )
                for row in rows
            ),
            notes=(
                "Teacher: what was retrieved. Gate open: share of queries on which it beats the base.",
                f"Oracle columns choose {ALPHA} on the test split: bounds, not results.",
            ),
        )
        for rows in comparable_rows(record for record in records if record.alpha is not None)
    ]


def failure_tables(failures: Sequence[Failure]) -> list[Table]:
    """The cells that ended in an error: one table, or none."""
    if not failures:
        return []
    fields = ("dataset", "horizon", "lookback", "seed", "profile")
    ordered = sorted(failures, key=lambda failed: (failed.spec.dataset, failed.spec.horizon, failed.key))
    specs = [failed.spec for failed in ordered]
    labels = list(map(method_label, specs, unlike_in_precision(specs)))
    return [
        Table(
            title="Failed cells",
            columns=("Method", "Backbone", "Dataset", "H", "L", "Seed", "Profile", "Error"),
            rows=tuple(
                (
                    Cell(label),
                    Cell(backbone_label(failed.spec)),
                    *(Cell(str(getattr(failed.spec, name))) for name in fields),
                    Cell(" ".join(failed.error.split())),
                )
                for failed, label in zip(ordered, labels, strict=True)
            ),
            data=tuple(
                {
                    "label": label,
                    "error": failed.error,
                    "key": failed.key,
                    **failed.spec.model_dump(include={"method", "backbone", *fields}),
                    "spec": failed.spec.model_dump_json(),
                }
                for failed, label in zip(ordered, labels, strict=True)
            ),
        )
    ]


def comparable_rows(records: Iterable[Record]) -> list[list[Row]]:
    """Rows that may share a table, table by table, in the order they are printed.

    Of rows that differ in their precision alone the name says it, in every table.
    """
    settings: dict[Any, dict[Any, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    for record in sorted(records, key=lambda record: record.provenance.created):
        spec, made = record.spec, record.provenance
        setting = (
            *(spec.dataset, spec.horizon, 0 if of_collection(record) else spec.lookback),
            *(spec.profile, spec.drop_last or 0),
            *(record.windows, record.windows_total, record.test_stride, score_device(made.device)),
            made.data_sha256,
        )
        cell = (
            spec.model_dump_json(exclude={"seed", "device", "samples", "test_stride"}),
            made.backbone_identity,
            record.levels,
        )
        settings[setting][cell][spec.seed] = record
    tables = [
        [Row(tuple(seeds[seed] for seed in sorted(seeds))) for seeds in cells.values()]
        for _, cells in sorted(settings.items(), key=lambda item: item[0])
    ]
    rows = [row for table in tables for row in table]
    named = dict(zip(rows, unlike_in_precision(row.spec for row in rows), strict=True))
    return [
        sorted((replace(row, with_precision=named[row]) for row in table), key=_order) for table in tables
    ]


def records_of(rows: Iterable[Row]) -> list[Record]:
    """All records of rows, in their order."""
    return [record for row in rows for record in row.records]


def _order(row: Row) -> tuple[int, str, str]:
    return row_rank(row.spec), backbone_label(row.spec), row.label

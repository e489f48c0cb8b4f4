"""Filling the places of a published table with what was measured here."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tsbench.bench.checks import lacking_here
from tsbench.bench.columns import changed_options
from tsbench.bench.latency_records import Measurement
from tsbench.bench.provenance import score_device
from tsbench.bench.records import Failure, Record
from tsbench.bench.suite import Suite
from tsbench.config import CellSpec
from tsbench.report.labels import (
    backbone_label,
    devices_label,
    is_leak,
    levels_label,
    method_notes,
    of_collection,
)
from tsbench.report.latency import UNTRAINED_NOTE, cost_figures
from tsbench.report.layout import (
    AVERAGE,
    AVERAGED,
    Layout,
    Place,
    Point,
    averaged,
    score_places,
    timing_places,
)
from tsbench.report.tables import Row, comparable_rows, records_of

NOT_RUN = "not run"
_LOOKBACK = 512
"""Of every query that TS-Memory's paper times."""
_OPEN = frozenset({"teacher", "recipe", "plugmem", "alpha_policy", "alpha_criterion", "layers", "patch"})
"""Options a run may choose as it likes, unless the table is about them."""


@dataclass(frozen=True)
class Figure:
    """One score or cost in its place.

    Attributes:
        values: By seed; empty where it is missing.
        missing: Why; empty where it is there.
        setting: What must be equal for figures of one data set and horizon to compare, in words. The windows
            come first; of the rest also the horizons of an average must agree.
        leak: Whether something was chosen on the test split.
        sources: Keys of the records or measurements it is made of.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    missing: str = ""
    setting: tuple[str, ...] = ()
    leak: bool = False
    sources: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(list(self.values.values())))


@dataclass(frozen=True)
class Filling:
    """The figures of a table, the missing ones too, and notes on how they came about.

    Attributes:
        figures: By place and metric.
        notes: How they came about.
        conditions: Of a table of timings, what they were taken under, data apart: the end of the setting of
            all figures that compare with each other. Empty for scores, of which most say it.
    """

    figures: dict[Point, Figure]
    notes: tuple[str, ...]
    conditions: tuple[str, ...] = ()


def fill_scores(
    layout: Layout, suite: Suite, records: Iterable[Record], failures: Sequence[Failure]
) -> Filling:
    """Fill a table of scores.

    A record fills a cell of the suite if it is equal in all that the table is about; profile, seeds, device,
    windows and the settings of the method are free. Of several settings of one data set and horizon the one
    that fills most cells is taken, then that with the most windows; a cell it lacks is taken from another
    one, and does not compare. Of several records of one cell and setting (the exclusion rule, the size of the
    memory module) the one with the fewest changed options is taken, an oracle last.

    Args:
        layout: The table.
        suite: Its cells.
        records: What was measured; seeds of a cell make one figure.
        failures: Cells that ended in an error.
    """
    places = score_places(suite)
    cells = {place: specs for place, specs in places.items() if isinstance(specs, tuple)}
    chosen = _chosen({spec for specs in cells.values() for spec in specs}, records)
    lacking = {spec for specs in cells.values() for spec in specs} - chosen.keys()
    reasons = _why_not(lacking, failures)
    figures: dict[Point, Figure] = {}
    for place, specs in places.items():
        for metric in layout.metrics:
            if isinstance(specs, str):
                figures[place, metric] = Figure(missing=specs)
            elif missing := [spec for spec in specs if spec in lacking]:
                only = f"{missing[0].dataset} " if len(specs) > 1 else ""
                figures[place, metric] = Figure(missing=only + reasons[missing[0]])
            else:
                figures[place, metric] = _score([chosen[spec] for spec in specs], metric)
    rows = {place: chosen[spec] for place, specs in cells.items() for spec in specs if spec in chosen}
    used = records_of(rows.values())
    devices = [f"Devices: {devices_label(used)}."] if used else []
    return Filling(figures | _averages(layout, figures), (*devices, *_as_run(rows), *method_notes(used)))


def fill_timings(layout: Layout, backbones: Sequence[str], measurements: Iterable[Measurement]) -> Filling:
    """Fill a table of timings under one set of conditions: device, threads, precision, weights, sizes.

    Of several the one that fills most places is taken, then the newest; a place it lacks is filled from
    another one, and does not compare. Of several measurements under the same conditions the one with most
    methods, then the newest counts. A table of single calls takes those of one query from the paper's
    lookback, as it says.

    Args:
        layout: The table.
        backbones: Take the place of the paper's; none keeps that.
        measurements: What was timed; whole evaluations and single calls are told apart.
    """
    whole_evaluations = "total_s" in layout.metrics
    alike: dict[tuple[str, ...], list[Measurement]] = defaultdict(list)
    for measured in sorted(measurements, key=lambda each: (len(each.costs), each.provenance.created)):
        spec = measured.spec
        if spec.batch == (None if whole_evaluations else 1) and spec.lookback == _LOOKBACK:
            alike[_conditions(measured)].append(measured)
    places = timing_places(layout, backbones)
    filled = {conditions: _timed(places, members) for conditions, members in alike.items()}
    fullest_last = sorted(alike, key=lambda each: (len(filled[each]), _newest(alike[each])))
    chosen: dict[Place, Measurement] = {}
    for conditions in fullest_last:
        chosen |= filled[conditions]
    figures = {
        (place, metric): _cost(chosen.get(place), place.method, metric)
        for place in places
        for metric in layout.metrics
    }
    notes = ["Fwd: the forward passes of all networks, and fusion."]
    if chosen:
        notes.append(UNTRAINED_NOTE)
    return Filling(figures | _averages(layout, figures), tuple(notes), fullest_last[-1] if alike else ())


def repeats(spec: CellSpec, cell: CellSpec) -> bool:
    """Whether a record of `spec` is what a suite asks for by `cell`.

    Args:
        spec: What was run.
        cell: As `tsbench.bench.plan.expand` makes it from options of which none is set: those that are set
            are the suite's.
    """
    fixed = ("method", "backbone", "dataset", "horizon", "lookback", "plugmem_from", "train_dataset")
    if any(getattr(spec, name) != getattr(cell, name) for name in fixed):
        return False
    asked, found = cell.options or cell.f_llm, spec.options or spec.f_llm
    if asked is None or found is None:
        return asked is found
    free = set(_OPEN - asked.model_fields_set)
    return found.model_dump(exclude=free) == asked.model_dump(exclude=free)


def _chosen(cells: Iterable[CellSpec], records: Iterable[Record]) -> dict[CellSpec, Row]:
    """The row that fills each cell; cells without one are left out."""
    wanted: dict[tuple[str, int], list[CellSpec]] = defaultdict(list)
    for cell in cells:
        wanted[cell.dataset, cell.horizon].append(cell)
    settings: list[tuple[tuple[int, int], dict[CellSpec, Row]]] = []
    for rows in comparable_rows(records):
        newest = sorted(rows, key=lambda row: row.records[0].provenance.created, reverse=True)
        filled = {}
        for cell in wanted[rows[0].spec.dataset, rows[0].spec.horizon]:
            fitting = [row for row in newest if repeats(row.spec, cell)]
            if fitting:
                filled[cell] = min(fitting, key=_oddity)
        settings.append(((len(filled), rows[0].records[0].windows), filled))
    chosen: dict[CellSpec, Row] = {}
    for _, filled in sorted(settings, key=lambda setting: setting[0]):
        chosen |= filled
    return chosen


def _oddity(row: Row) -> tuple[int, ...]:
    """How far a row is from what is run by default."""
    spec = row.spec
    unusual = (is_leak(spec), spec.checkpoint is not None, spec.rollout != "median")
    return (*map(int, unusual), len(changed_options(spec)), int(spec.train_stride is not None))


def _why_not(cells: Iterable[CellSpec], failures: Sequence[Failure]) -> dict[CellSpec, str]:
    """Why cells have no record, as far as this machine can tell."""
    needed: dict[tuple[object, ...], list[CellSpec]] = defaultdict(list)
    for cell in cells:
        needed[cell.method, cell.backbone, cell.plugmem_from, cell.f_llm].append(cell)
    found = {}
    for alike in needed.values():
        lacking = lacking_here(alike[0])
        for cell in alike:
            errors = (" ".join(failed.error.split()) for failed in failures if repeats(failed.spec, cell))
            missing = f"{NOT_RUN}: {lacking}" if lacking else NOT_RUN
            found[cell] = next((f"failed: {error}" for error in errors), missing)
    return found


def _score(rows: Sequence[Row], metric: str) -> Figure:
    """One score of a row, or of several collections pooled by their series."""
    records = [record for row in rows for record in row.records]
    weights = [row.records[0].windows for row in rows]
    by_seed = [
        {record.spec.seed: record.metrics.get(metric, np.nan) for record in row.records} for row in rows
    ]
    shared = sorted(set.intersection(*(set(scores) for scores in by_seed)))
    values = {
        seed: float(np.average([scores[seed] for scores in by_seed], weights=weights)) for seed in shared
    }
    if not values or not np.isfinite(list(values.values())).all():
        points = metric == "crps" and not any(record.levels for record in records)
        return Figure(missing="point forecasts have no CRPS" if points else f"its record has no {metric}")
    return Figure(
        values=values,
        setting=_setting([row.records[0] for row in rows], metric),
        leak=any(is_leak(row.spec) for row in rows),
        sources=tuple(record.key for record in records),
    )


def _setting(records: Sequence[Record], metric: str) -> tuple[str, ...]:
    first = records[0]
    spec, made = first.spec, first.provenance
    what = "series" if of_collection(first) else "windows"
    windows, total = (sum(getattr(r, name) for r in records) for name in ("windows", "windows_total"))
    return (
        f"all {total} {what}" if windows == total else f"{windows} of {total} {what}",
        "data " + " ".join(record.provenance.data_sha256[:8] for record in records),
        f"profile {spec.profile}",
        score_device(made.device),
        *([f"incomplete last batch of {spec.drop_last} dropped"] if spec.drop_last else []),
        *([f"CRPS over {levels_label(first.levels)}"] if metric == "crps" else []),
    )


def _timed(places: Iterable[Place], measurements: Iterable[Measurement]) -> dict[Place, Measurement]:
    """The last measurement of each place; places without one are left out."""
    found = {
        (measured.spec.backbone, measured.spec.dataset, str(measured.spec.horizon), method): measured
        for measured in measurements
        for method in measured.costs
    }
    wanted = {place: (place.backbone, place.dataset, place.horizon, place.method) for place in places}
    return {place: found[which] for place, which in wanted.items() if which in found}


def _newest(measurements: Iterable[Measurement]) -> str:
    return max(measured.provenance.created for measured in measurements)


def _cost(measured: Measurement | None, method: str, metric: str) -> Figure:
    if measured is None:
        return Figure(missing=NOT_RUN)
    figures = cost_figures(measured, method)
    name, _, unit = metric.rpartition("_")
    value = figures["retrieval_fraction"]
    if unit != "fraction":
        value = figures[f"{name}_ms"] + (figures["fusion_ms"] if name == "forward" else 0.0)
        value *= measured.queries / 1e3 if unit == "s" else 1.0
    queries = f"{measured.queries:,} quer{'y' if measured.queries == 1 else 'ies'}"
    return Figure(
        values={0: value},
        setting=(
            f"{figures['rounds']} rounds of {queries}",
            f"data {measured.provenance.data_sha256[:8]}",
            *_conditions(measured),
        ),
        sources=(measured.key,),
    )


def _conditions(measured: Measurement) -> tuple[str, ...]:
    """What the timings of a table have in common, in words."""
    spec = measured.spec
    return (
        f"L = {spec.lookback}",
        f"test stride {spec.test_stride}" if spec.batch is None else f"batch {spec.batch}",
        f"PlugMem {spec.plugmem}",
        spec.precision + (", compiled" if spec.compiled else ""),
        *(["random weights"] if spec.random_init else []),
        *([f"weights {spec.checkpoint}"] if spec.checkpoint else []),
        f"roll-out {spec.rollout}",
        f"{spec.threads} thread{'s' if spec.threads > 1 else ''}",
        measured.provenance.device,
    )


def _averages(layout: Layout, figures: Mapping[Point, Figure]) -> dict[Point, Figure]:
    """Means over the four horizons, of every row of a table that prints them."""
    if AVERAGE not in layout.horizons:
        return {}
    labels = dict.fromkeys(
        (Place(place.dataset, AVERAGE, place.method, place.backbone, place.variant), metric)
        for place, metric in figures
    )
    return {
        (place, metric): _average([figures[part, metric] for part in averaged(place)])
        for place, metric in labels
    }


def _average(parts: Sequence[Figure]) -> Figure:
    reasons = {part.missing for part in parts}
    if len(reasons) == 1 and "" not in reasons:
        return Figure(missing=reasons.pop())
    gaps = [horizon for horizon, part in zip(AVERAGED, parts, strict=True) if part.missing]
    if gaps:
        return Figure(missing=f"no average: no result at {', '.join(gaps)}")
    if len({part.setting[1:] for part in parts}) > 1:
        return Figure(missing="no average: the horizons were not run alike")
    seeds = sorted(set.intersection(*(set(part.values) for part in parts)))
    if not seeds:
        return Figure(missing="no average: the horizons have no seed in common")
    return Figure(
        values={seed: float(np.mean([part.values[seed] for part in parts])) for seed in seeds},
        setting=(_alike_or_by_horizon([part.setting[0] for part in parts]), *parts[0].setting[1:]),
        leak=any(part.leak for part in parts),
        sources=tuple(source for part in parts for source in part.sources),
    )


def _alike_or_by_horizon(texts: Sequence[str]) -> str:
    if len(set(texts)) == 1:
        return texts[0]
    return ", ".join(f"{text} at {horizon}" for text, horizon in zip(texts, AVERAGED, strict=True))


def _as_run(rows: Mapping[Place, Row]) -> list[str]:
    """A note on the methods that were run with other settings than their name says."""
    found: dict[tuple[str, ...], dict[str, list[Place]]] = defaultdict(lambda: defaultdict(list))
    for place, row in rows.items():
        weights = f" on {backbone_label(row.spec)}" if row.spec.checkpoint else ""
        label = row.label + weights
        found[place.method, place.backbone, place.variant][label].append(place)
    kinds: dict[str, None] = {}
    for labels in found.values():
        for label, places in labels.items():
            if "," in label or " (" in label:
                kinds[label if len(labels) == 1 else f"{label} ({_listed(places)})"] = None
    return [f"As run: {'; '.join(kinds)}."] if kinds else []


def _listed(places: Sequence[Place]) -> str:
    """Data sets with their horizons, such as "ETTh1 96 192, Weather 96"."""
    horizons: dict[str, list[int]] = defaultdict(list)
    for place in places:
        horizons[place.dataset] += [int(place.horizon)] if place.horizon.isdigit() else []
    return ", ".join(" ".join(map(str, (name, *sorted(steps)))) for name, steps in horizons.items())

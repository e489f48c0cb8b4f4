"""What accuracy costs: MSE against the time of a query; retrieval against the number of stored windows."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from tsbench.bench.latency_records import Measurement, load_measurements
from tsbench.bench.store import file_name, readable
from tsbench.config import digest
from tsbench.report.figures.canvas import COLUMN, PAGE, legend_below, line_styles, sheet
from tsbench.report.figures.settings import Panel, Results, coverage_note, mean_score, studies
from tsbench.report.labels import backbone_label
from tsbench.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX*<>ph"


@dataclass(frozen=True)
class Point:
    """One method: median milliseconds per query, the middle 80 % of the rounds, and its MSE."""

    label: str
    backbone: str
    median_ms: float
    low_ms: float
    high_ms: float
    mse: float


@dataclass(frozen=True)
class AccuracyLatency:
    """What one picture shows: the points of each horizon."""

    name: str
    title: str
    note: str
    panels: tuple[tuple[int, tuple[Point, ...]], ...]


@dataclass(frozen=True)
class RetrievalScaling:
    """What the picture of retrieval shows: milliseconds by number of stored windows, per index."""

    name: str
    title: str
    note: str
    lines: dict[str, dict[int, float]]


def prepare_accuracy_latency(results: Results) -> list[AccuracyLatency]:
    """A picture per data set, lookback and way of timing: measurements of single queries beside records.

    A record goes with a measurement of its backbone, method, data set, horizon, lookback, roll-out and
    weights, of TS-Memory with the size of PlugMem, of LoRA with the rank; random weights of the true shape
    take the same time. All methods on a backbone at one horizon are from one measurement. A method for which
    validation kept the backbone's own forecast has no point but a word in the small print.
    """
    single = [each for each in load_measurements(results.root) if each.spec.batch == 1]
    found: dict[tuple[str, ...], dict[int, dict[tuple[str, str], Point]]] = {}
    notes: dict[tuple[str, ...], str] = {}
    kept: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for study in studies(results.records):
        for panel in study.panels:
            for measured, rows in _matched(panel, single):
                place = (study.dataset, str(study.lookback), study.profile, _way(measured))
                origins = [row for row in rows if _kept_origin(row)]
                if origins:
                    names = ", ".join(map(study.label, origins))
                    kept[place].append(f"{names} on {backbone_label(origins[0].spec)} at H = {panel.horizon}")
                for row in rows:
                    if row not in origins:
                        point = _point(study.label(row), row, measured)
                        points = found.setdefault(place, {}).setdefault(panel.horizon, {})
                        points[point.label, point.backbone] = point
                plugmem = f", {study.plugmem}" if study.plugmem else ""
                notes.setdefault(place, f"MSE on {coverage_note(study.panels)}{plugmem}")
    return [
        AccuracyLatency(
            name=file_name(f"accuracy-latency-{dataset}-L{lookback}-{digest([profile, way])[:6]}"),
            title=", ".join([dataset, f"L = {lookback}", *_backbones(panels)])
            + ": MSE against the time of a query",
            note=f"{notes[place]}, profile {profile}. Single queries on {way}; bars: 80 % of the rounds."
            + _kept_note(kept[place]),
            panels=tuple((horizon, tuple(points.values())) for horizon, points in sorted(panels.items())),
        )
        for place, panels in found.items()
        for dataset, lookback, profile, way in [place]
    ]


def _matched(panel: Panel, measurements: Iterable[Measurement]) -> list[tuple[Measurement, list[Row]]]:
    """Of each backbone and way of timing the measurement of most of its rows, of several the newest."""
    found: dict[tuple[str | None, ...], tuple[Measurement, list[Row]]] = {}
    for measured in sorted(measurements, key=lambda each: each.provenance.created):
        rows = [row for row in panel.rows if _belong(row, measured)]
        place = (measured.spec.backbone, measured.spec.checkpoint, _way(measured))
        if rows and (place not in found or len(rows) >= len(found[place][1])):
            found[place] = measured, rows
    return list(found.values())


def _way(measured: Measurement) -> str:
    """How it was timed, in words."""
    spec = measured.spec
    parts = [measured.provenance.device, _threads(spec.threads), spec.precision]
    return ", ".join([*parts, *(["compiled"] if spec.compiled else [])])


def _kept_origin(row: Row) -> bool:
    """Whether validation kept the backbone's own forecast at every seed: a query then costs Origin's time."""
    return all(record.alpha == 0 or record.metrics.get("lora_steps") == 0 for record in row.records)


def _kept_note(kept: Sequence[str]) -> str:
    if not kept:
        return ""
    return f" Validation kept the backbone's own forecast, so MSE and time are Origin's: {'; '.join(kept)}."


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _backbones(panels: dict[int, dict[tuple[str, str], Point]]) -> list[str]:
    return list(dict.fromkeys(backbone for points in panels.values() for _, backbone in points))


def _belong(row: Row, measured: Measurement) -> bool:
    cell, timed = row.spec, measured.spec
    same = ("backbone", "dataset", "horizon", "lookback", "rollout", "checkpoint")
    if cell.method not in measured.costs:
        return False
    settings = measured.costs[cell.method].settings
    rank = settings.get("lora_rank")
    return (
        (cell.options is None or cell.options.plugmem == timed.plugmem)
        and (rank is None or row.records[0].metrics.get("lora_rank") == rank)
        and all(getattr(cell, name) == getattr(timed, name) for name in same)
    )


def _point(label: str, row: Row, measured: Measurement) -> Point:
    totals = np.array(measured.costs[row.spec.method].totals) / measured.queries
    low, middle, high = (float(value) for value in np.percentile(totals, [10, 50, 90]))
    return Point(label, backbone_label(row.spec), middle, low, high, mean_score(row, "mse"))


def prepare_retrieval_scaling(results: Results) -> list[RetrievalScaling]:
    """A picture per file of benchmarks/perf/retrieval_scaling.py in the folder of the latencies.

    Raises:
        TsbenchError: A file is damaged.
    """
    found = []
    for path in sorted(results.root.glob("latency/retrieval-scaling*.json")):
        with readable(path):
            readings = json.loads(path.read_bytes())
            lines: dict[str, dict[int, float]] = {}
            for each in readings:
                searched = each["dimension"]  # 0: nothing is searched
                label = f"{each['method']}, {searched} values" if searched else each["method"]
                lines.setdefault(label, {})[each["size"]] = float(each["p50_ms"])
            first = readings[0]
            threads = _threads(first["threads"])
            note = f"{first['device']}, {threads}. Median of single queries, generated data."
        title = "Retrieval time by stored windows"
        found.append(RetrievalScaling(file_name(path.stem), title, note, lines))
    return found


def point_styles(points: Iterable[Point]) -> dict[tuple[str, str], dict[str, Any]]:
    """Colour and marker of each label and backbone; a marker for each backbone and variant of a method.

    No two have both in common as long as there are no more kinds of marks than `_MARKERS`, nor more labels
    than `line_styles` tells apart.
    """
    names = dict.fromkeys((point.label, point.backbone) for point in points)
    lines = line_styles(label for label, _ in names)
    kinds = {(label, backbone): (backbone, lines[label]["linestyle"]) for label, backbone in names}
    markers = dict(zip(dict.fromkeys(kinds.values()), cycle(_MARKERS), strict=False))
    return {name: {"color": lines[name[0]]["color"], "marker": markers[kind]} for name, kind in kinds.items()}


def draw_accuracy_latency(picture: AccuracyLatency) -> "Figure":
    """A panel per horizon; to the left is faster, below is better."""
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

    figure = sheet(PAGE, 2.4, picture.title, picture.note)
    every = figure.subplots(1, len(picture.panels), sharex=True, squeeze=False)[0]
    backbones = list(dict.fromkeys(point.backbone for _, points in picture.panels for point in points))
    styles = point_styles([point for _, points in picture.panels for point in points])
    times = [
        time for _, points in picture.panels for point in points for time in (point.low_ms, point.high_ms)
    ]
    ticks = (1, 2, 3, 5) if max(times) < 20 * min(times) else (1, 2, 5)
    for axes, (horizon, points) in zip(every, picture.panels, strict=True):
        for point in points:
            axes.errorbar(
                point.median_ms,
                point.mse,
                xerr=[[point.median_ms - point.low_ms], [point.high_ms - point.median_ms]],
                linestyle="none",
                elinewidth=0.8,
                label=f"{point.label} ({point.backbone})" if len(backbones) > 1 else point.label,
                **styles[point.label, point.backbone],
            )
        axes.set_title(f"H = {horizon}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=ticks))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("ms per query")
        axes.grid(axis="both")
    every[0].set_ylabel("MSE, standardised")
    legend_below(figure, every)
    return figure


def draw_retrieval_scaling(picture: RetrievalScaling) -> "Figure":
    """Both axes logarithmic, a line per index."""
    figure = sheet(COLUMN, 2.6, picture.title, picture.note)
    axes = figure.subplots()
    styles = line_styles(picture.lines)
    for label, line in picture.lines.items():
        axes.plot(list(line), list(line.values()), marker="o", label=label, **styles[label])
    axes.set(xscale="log", yscale="log", xlabel="stored windows", ylabel="ms per query")
    axes.grid(axis="both")
    legend_below(figure, [axes])
    return figure

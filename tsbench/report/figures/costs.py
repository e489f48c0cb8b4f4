"""What accuracy costs: MSE against the time of a query; retrieval against the number of stored windows."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tsbench.bench.latency_records import Measurement, load_measurements
from tsbench.bench.store import file_name, readable
from tsbench.config import digest
from tsbench.report.figures.canvas import COLUMN, PAGE, legend_below, line_styles, sheet
from tsbench.report.figures.settings import Results, coverage_note, mean_score, studies
from tsbench.report.labels import backbone_label
from tsbench.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    A record goes with the newest measurement of its backbone, method, data set, horizon, lookback, roll-out
    and weights, of TS-Memory with the size of PlugMem, of LoRA with the rank; random weights of the true
    shape take the same time.
    """
    single = (each for each in load_measurements(results.root) if each.spec.batch == 1)
    timed = sorted(single, key=lambda each: each.provenance.created)  # the newest of several stays
    found: dict[tuple[str, ...], dict[int, dict[tuple[str, str], Point]]] = {}
    notes: dict[tuple[str, ...], str] = {}
    for study in studies(results.records):
        for panel in study.panels:
            for measured in timed:
                spec = measured.spec
                way = f"{measured.provenance.device}, {_threads(spec.threads)}, {spec.precision}"
                way += ", compiled" if spec.compiled else ""
                place = (study.dataset, str(study.lookback), study.profile, way)
                for row in panel.rows:
                    if _belong(row, measured):
                        points = found.setdefault(place, {}).setdefault(panel.horizon, {})
                        point = _point(study.label(row), row, measured)
                        points[point.label, point.backbone] = point
                        plugmem = f", {study.plugmem}" if study.plugmem else ""
                        notes.setdefault(place, f"MSE on {coverage_note(study.panels)}{plugmem}")
    return [
        AccuracyLatency(
            name=file_name(f"accuracy-latency-{dataset}-L{lookback}-{digest([profile, way])[:6]}"),
            title=", ".join([dataset, f"L = {lookback}", *_backbones(panels)])
            + ": MSE against the time of a query",
            note=f"{notes[dataset, lookback, profile, way]}, profile {profile}. Single queries on {way}; "
            "bars: 80 % of the rounds.",
            panels=tuple((horizon, tuple(points.values())) for horizon, points in sorted(panels.items())),
        )
        for (dataset, lookback, profile, way), panels in found.items()
    ]


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
                several = len({r["dimension"] for r in readings if r["method"] == each["method"]}) > 1
                label = f"{each['method']}, {each['dimension']} values" if several else each["method"]
                lines.setdefault(label, {})[each["size"]] = float(each["p50_ms"])
            first = readings[0]
            threads = _threads(first["threads"])
            note = f"{first['device']}, {threads}. Median of single queries, generated data."
        title = "Retrieval time by stored windows"
        found.append(RetrievalScaling(file_name(path.stem), title, note, lines))
    return found


def draw_accuracy_latency(picture: AccuracyLatency) -> "Figure":
    """A panel per horizon; to the left is faster, below is better."""
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

    figure = sheet(PAGE, 2.4, picture.title, picture.note)
    every = figure.subplots(1, len(picture.panels), sharex=True, squeeze=False)[0]
    backbones = list(dict.fromkeys(point.backbone for _, points in picture.panels for point in points))
    styles = line_styles(point.label for _, points in picture.panels for point in points)
    for axes, (horizon, points) in zip(every, picture.panels, strict=True):
        for point in points:
            axes.errorbar(
                point.median_ms,
                point.mse,
                xerr=[[point.median_ms - point.low_ms], [point.high_ms - point.median_ms]],
                color=styles[point.label]["color"],
                marker="osD^vP"[backbones.index(point.backbone) % 6],
                linestyle="none",
                elinewidth=0.8,
                label=f"{point.label} ({point.backbone})" if len(backbones) > 1 else point.label,
            )
        axes.set_title(f"H = {horizon}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
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

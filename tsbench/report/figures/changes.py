"""MSE against the backbone alone: TS-Memory's ablations, what it was trained on, the size of its network."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from tsbench.choices import PlugMemSizeName
from tsbench.metrics.overlap import percent_change
from tsbench.report.figures.canvas import COLUMN, GREY, PAGE, legend_below, line_styles, sheet
from tsbench.report.figures.settings import Panel, Results, Study, mean_score, studies
from tsbench.report.labels import is_transfer
from tsbench.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZES = get_args(PlugMemSizeName)
_HORIZON_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class _Panel:
    """TS-Memory cells at one horizon and their change of MSE in percent."""

    horizon: int
    changes: dict[Row, float]


@dataclass(frozen=True)
class Change:
    """One variant: its change of MSE in percent by horizon; negative is better than the backbone alone."""

    label: str
    percent: dict[int, float]


@dataclass(frozen=True)
class Changes:
    """What one picture of variants shows.

    Attributes:
        name: File name without ending.
        title: Data set, lookback, backbone, subject.
        note: Small print.
        horizons: That any variant has, ascending.
        changes: The variants.
    """

    name: str
    title: str
    note: str
    horizons: tuple[int, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Capacity:
    """What one picture of sizes shows: per line the change of MSE in percent by size of PlugMem."""

    name: str
    title: str
    note: str
    lines: dict[str, dict[str, float]]


def prepare_ablation(results: Results) -> list[Changes]:
    """A picture per data set and backbone where TS-Memory was run in several variants on its own data."""
    subject = "TS-Memory and its ablations"
    return [
        _picture(study, "ablation", subject, panels)
        for study in studies(results.records)
        if (panels := _panels(study))
        and len({study.label(row) for panel in panels for row in panel.changes}) > 1
    ]


def prepare_domain_shift(results: Results) -> list[Changes]:
    """A picture per data set and backbone where TS-Memory learned from other data or for another backbone.

    Beside those cells stand the ones that learned at home, at the same horizons.
    """
    found = []
    for study in studies(results.records, transfers=True):
        panels = [panel for panel in _panels(study) if any(is_transfer(row.spec) for row in panel.changes)]
        if panels:
            found.append(_picture(study, "domain-shift", "what TS-Memory learned from", panels))
    return found


def prepare_capacity(results: Results) -> list[Capacity]:
    """A picture per data set and backbone where PlugMem was run in several sizes."""
    found = []
    for study in studies(results.records):
        changes: dict[tuple[str, int], dict[str, float]] = {}
        for panel in _panels(study):
            for row, percent in panel.changes.items():
                if row.spec.options is not None:
                    size = row.spec.options.plugmem
                    label = row.label.replace(f", PlugMem {size}", "")
                    changes.setdefault((label, panel.horizon), {})[size] = percent
        several = {place: sizes for place, sizes in changes.items() if len(sizes) > 1}
        if several:
            horizons = {horizon for _, horizon in several}
            shown = replace(study, panels=tuple(p for p in study.panels if p.horizon in horizons))
            title = f"{study.title}: size of PlugMem"
            lines = {f"{label}, H = {horizon}": sizes for (label, horizon), sizes in several.items()}
            found.append(Capacity(study.name("capacity"), title, _note(shown), lines))
    return found


def _panels(study: Study) -> list[_Panel]:
    """The TS-Memory cells of each horizon whose backbone was scored alone, with their change of MSE."""
    found = []
    for panel in study.panels:
        changes = {
            row: percent
            for row in panel.rows
            if row.spec.method == "ts-memory" and (percent := change(row, panel)) is not None
        }
        if changes:
            found.append(_Panel(panel.horizon, changes))
    return found


def _picture(study: Study, figure: str, subject: str, panels: list[_Panel]) -> Changes:
    by_label: dict[str, dict[int, float]] = {}
    for panel in panels:
        for row, percent in panel.changes.items():
            by_label.setdefault(study.label(row), {})[panel.horizon] = percent
    return Changes(
        name=study.name(figure),
        title=f"{study.title}: {subject}",
        note=_note(study),
        horizons=tuple(panel.horizon for panel in panels),
        changes=tuple(Change(label, percents) for label, percents in by_label.items()),
    )


def change(row: Row, panel: Panel) -> float | None:
    """Percent by which the row's MSE, the mean over seeds, differs from its backbone's alone."""
    for origin in panel.rows:
        if origin.spec.method == "origin" and origin.weights == row.weights:
            percent = percent_change(mean_score(row, "mse"), mean_score(origin, "mse"))
            return percent if np.isfinite(percent) else None
    return None


def _note(study: Study) -> str:
    return study.note("Change of MSE against the backbone alone; negative is better", "Mean over seeds")


def draw_changes(picture: Changes) -> "Figure":
    """A bar per variant, the mean over horizons where it has all of them, and a mark per horizon."""
    figure = sheet(PAGE, 0.75 + 0.2 * len(picture.changes), picture.title, picture.note)
    axes = figure.subplots()
    places = np.arange(len(picture.changes))[::-1]
    if len(picture.horizons) > 1:
        for place, each in zip(places, picture.changes, strict=True):
            if each.percent.keys() == set(picture.horizons):
                mean = float(np.mean(list(each.percent.values())))
                axes.barh(place, mean, height=0.6, color="#D9D9D9", label="mean over all horizons")
    for number, horizon in enumerate(picture.horizons):
        marks = [
            (each.percent[horizon], y)
            for each, y in zip(picture.changes, places, strict=True)
            if horizon in each.percent
        ]
        axes.plot(
            *np.transpose(marks),
            linestyle="none",
            marker="osD^vP"[number % 6],
            markersize=3.5,
            color=_HORIZON_COLOURS[number % 6],
            label=f"H = {horizon}",
        )
    axes.use_sticky_edges = False  # marks at the end of a bar keep their margin
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.set_yticks(places, [each.label for each in picture.changes])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("change of MSE, %")
    axes.grid(axis="x")
    legend_below(figure, [axes])
    return figure


def draw_capacity(picture: Capacity) -> "Figure":
    """A line per variant and horizon over the sizes."""
    figure = sheet(COLUMN, 2.4, picture.title, picture.note)
    axes = figure.subplots()
    sizes = [size for size in _SIZES if any(size in line for line in picture.lines.values())]
    styles = line_styles(picture.lines)
    for label, line in picture.lines.items():
        here = [size for size in sizes if size in line]
        axes.plot(
            [sizes.index(size) for size in here],
            [line[size] for size in here],
            marker="o",
            label=label,
            **styles[label],
        )
    axes.axhline(0, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set(xlabel="size of PlugMem", ylabel="change of MSE, %")
    legend_below(figure, [axes])
    return figure

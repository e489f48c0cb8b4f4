"""Error by horizon step, and how far quantiles are what they say."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tsbench.bench.records import Details
from tsbench.report.figures.canvas import GREY, PAGE, legend_below, line_styles, sheet
from tsbench.report.figures.settings import Panel, Results, Study, studies
from tsbench.report.labels import is_baseline
from tsbench.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LINES = 8


@dataclass(frozen=True, eq=False)
class StepLine:
    """Errors of one method by horizon step, [H] each.

    Attributes:
        label: The method.
        mse: In standardised units.
        mae: Likewise.
        loss: Weighted quantile loss; NaN for point forecasts and where every target is zero.
    """

    label: str
    mse: NDArray[np.float64]
    mae: NDArray[np.float64]
    loss: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StepErrors:
    """What one picture of errors by step shows."""

    name: str
    title: str
    note: str
    lines: tuple[StepLine, ...]


@dataclass(frozen=True, eq=False)
class CalibrationLine:
    """Calibration of one method.

    Attributes:
        label: The method.
        edges: [Q + 2] levels with 0 and 1 around them.
        density: [Q + 1] share of targets between neighbouring quantiles over what it should be; 1 is right.
        nominal: [I] probability of each central interval, ascending.
        covered: [I] share of targets inside it.
    """

    label: str
    edges: NDArray[np.float64]
    density: NDArray[np.float64]
    nominal: NDArray[np.float64]
    covered: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What one picture of calibration shows."""

    name: str
    title: str
    note: str
    lines: tuple[CalibrationLine, ...]


def prepare_steps(results: Results) -> list[StepErrors]:
    """A picture per data set, horizon and backbone with details, the naive forecasts among the methods."""
    return [
        StepErrors(
            name=study.name("steps", panel.horizon),
            title=f"{study.title}, H = {panel.horizon}: error by horizon step",
            note=_note(study, lines),
            lines=tuple(_step_line(study.label(row), details) for row, details in lines[:_MOST_LINES]),
        )
        for study, panel, lines in _with_details(results)
    ]


def prepare_calibration(results: Results) -> list[Calibration]:
    """A picture per data set, horizon and backbone with details of quantile forecasts."""
    found = []
    for study, panel, every in _with_details(results):
        lines = [
            (row, details) for row, details in every if len(details.levels) > 1 and not is_baseline(row.spec)
        ]
        if lines:
            found.append(
                Calibration(
                    name=study.name("calibration", panel.horizon),
                    title=f"{study.title}, H = {panel.horizon}: calibration",
                    note=_note(study, lines),
                    lines=tuple(
                        calibration_line(study.label(row), details) for row, details in lines[:_MOST_LINES]
                    ),
                )
            )
    return found


def _with_details(results: Results) -> list[tuple[Study, Panel, list[tuple[Row, Details]]]]:
    """Panels in which a row of the backbone has details, with those rows and their details."""
    found = []
    for study in studies(results.records):
        for panel in study.panels:
            lines = [(row, details) for row in panel.rows if (details := results.details(row)) is not None]
            if any(not is_baseline(row.spec) for row, _ in lines):
                found.append((replace(study, panels=(panel,)), panel, lines))
    return found


def _note(study: Study, lines: list[tuple[Row, Details]]) -> str:
    more = len(lines) - _MOST_LINES
    hidden = [f"Methods left out: {more} (--select chooses)"] if more > 0 else []
    seeds = study.seeds(row for row, _ in lines[:_MOST_LINES])
    return study.note("Means over channels and windows", seeds, *hidden)


def _step_line(label: str, details: Details) -> StepLine:
    pinball, size = details.pinball.astype(np.float64), details.abs_target.astype(np.float64)
    loss = np.divide(pinball, size, out=np.full(len(size), np.nan), where=size > 0)
    return StepLine(label, details.mse.astype(np.float64), details.mae.astype(np.float64), loss)


def calibration_line(label: str, details: Details) -> CalibrationLine:
    """Calibration of quantile forecasts.

    The probability integral transform of a target is the level of the quantile it falls on. Its histogram has
    the levels as edges, and is flat at 1 when calibrated; a U says that intervals are too narrow.

    Args:
        label: The method.
        details: With levels.

    Source:
        Gneiting, Balabdaoui and Raftery 2007, doi:10.1111/j.1467-9868.2007.00587.x, section 3.1.
    """
    edges = np.concatenate([[0.0], details.levels, [1.0]])
    share = np.diff(np.concatenate([[0.0], details.below, [1.0]]))
    half = len(details.levels) // 2
    low, high = np.arange(half)[::-1], np.arange(len(details.levels) - half, len(details.levels))
    return CalibrationLine(
        label=label,
        edges=edges,
        density=share / np.diff(edges),
        nominal=details.levels[high] - details.levels[low],
        covered=details.below[high] - details.below[low],
    )


def draw_steps(picture: StepErrors) -> "Figure":
    """MSE, MAE and weighted quantile loss, side by side."""
    figure = sheet(PAGE, 2.2, picture.title, picture.note)
    every = figure.subplots(1, 3)
    styles = line_styles(line.label for line in picture.lines)
    titles = {"mse": "MSE, standardised", "mae": "MAE, standardised", "loss": "weighted quantile loss"}
    for axes, (name, title) in zip(every, titles.items(), strict=True):
        for line in picture.lines:
            values = getattr(line, name)
            if np.isfinite(values).any():
                axes.plot(np.arange(len(values)) + 1, values, label=line.label, **styles[line.label])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("horizon step")
        axes.set_title(title)
        axes.grid(axis="y")
    legend_below(figure, every)
    return figure


def draw_calibration(picture: Calibration) -> "Figure":
    """Coverage of the central intervals, and the histogram of the probability integral transform."""
    figure = sheet(PAGE, 2.5, picture.title, picture.note)
    coverage, histogram = figure.subplots(1, 2)
    styles = line_styles(line.label for line in picture.lines)
    for line in picture.lines:
        coverage.plot(
            100 * line.nominal, 100 * line.covered, marker="o", label=line.label, **styles[line.label]
        )
        histogram.stairs(line.density, line.edges, baseline=None, linewidth=1.1, **styles[line.label])
    coverage.plot([0, 100], [0, 100], color=GREY, linewidth=0.6, linestyle=":")
    coverage.set(xlim=(0, 100), ylim=(0, 100), xlabel="central interval, %", ylabel="targets inside, %")
    coverage.set_title("interval coverage (dotted: right)")
    histogram.axhline(1, color=GREY, linewidth=0.6, linestyle=":")
    histogram.set(xlim=(0, 1), xlabel="level of the quantile that the target falls on", ylabel="density")
    histogram.set_ylim(bottom=0)
    histogram.set_title("probability integral transform (dotted: right)")
    legend_below(figure, [coverage])
    return figure

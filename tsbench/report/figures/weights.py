"""MSE against the fusion weight: what validation chose, and what the test split would have."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tsbench.report.figures.canvas import GREY, PAGE, legend_below, line_styles, sheet
from tsbench.report.figures.settings import Results, studies
from tsbench.report.labels import ALPHA

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class WeightCurve:
    """MSE of one fused method in percent of the backbone's alone, by fusion weight.

    Attributes:
        label: The method.
        alpha: [21] weights; 0 is the backbone alone.
        val: [21] change on the validation split, percent.
        test: [21] change on the test split.
        chosen: Place of the weight that was used.
        best: Place of the lowest test MSE: a bound, no result.
    """

    label: str
    alpha: NDArray[np.float64]
    val: NDArray[np.float64]
    test: NDArray[np.float64]
    chosen: int
    best: int


@dataclass(frozen=True, eq=False)
class WeightPicture:
    """What one picture shows: the curves of each horizon."""

    name: str
    title: str
    note: str
    panels: tuple[tuple[int, tuple[WeightCurve, ...]], ...]


def prepare_weights(results: Results) -> list[WeightPicture]:
    """A picture per data set and backbone, with a panel per horizon that has fused methods."""
    found = []
    for study in studies(results.records):
        panels = []
        for panel in study.panels:
            curves = []
            for row in panel.rows:
                record = results.load(row) if row.records[0].alpha is not None else None
                if record is not None and record.curves is not None and record.alpha is not None:
                    stored = record.curves
                    curves.append(
                        weight_curve(
                            study.label(row),
                            stored.alpha,
                            stored.val["mse"],
                            stored.test["mse"],
                            record.alpha,
                        )
                    )
            if curves:
                panels.append((panel.horizon, tuple(curves)))
        if panels:
            note = study.note(f"{ALPHA} = 0 is the backbone alone", "First seed")
            title = f"{study.title}: MSE against the fusion weight {ALPHA}"
            found.append(WeightPicture(study.name("alpha"), title, note, tuple(panels)))
    return found


def weight_curve(
    label: str,
    alpha: NDArray[np.float64],
    val: NDArray[np.float64],
    test: NDArray[np.float64],
    used: float,
) -> WeightCurve:
    """A curve in percent of its first entry.

    Args:
        label: The method.
        alpha: [21] weights, from 0.
        val: [21] MSE on the validation split.
        test: [21] MSE on the test split.
        used: Weight the cell was scored with.
    """
    return WeightCurve(
        label=label,
        alpha=alpha,
        val=100 * (val / val[0] - 1),
        test=100 * (test / test[0] - 1),
        chosen=int(np.abs(alpha - used).argmin()),
        best=int(test.argmin()),
    )


def draw_weights(picture: WeightPicture) -> "Figure":
    """A column per horizon, validation above test, with both choices marked."""
    figure = sheet(PAGE, 3.1, picture.title, picture.note)
    axes = figure.subplots(2, len(picture.panels), sharex=True, sharey="row", squeeze=False)
    styles = line_styles(curve.label for _, curves in picture.panels for curve in curves)
    marks = {
        "chosen on validation": {"marker": "o", "markersize": 4.5},
        "test optimum (no result)": {"marker": "D", "markersize": 4.5, "markerfacecolor": "white"},
    }
    for place, (horizon, curves) in enumerate(picture.panels):
        for curve in curves:
            own = styles[curve.label]
            axes[0, place].plot(curve.alpha, curve.val, label=curve.label, **own)
            axes[1, place].plot(curve.alpha, curve.test, **own)
            best, chosen = curve.best, curve.chosen
            for axis, values in ((axes[0, place], curve.val), (axes[1, place], curve.test)):
                axis.plot(
                    curve.alpha[chosen], values[chosen], color=own["color"], **marks["chosen on validation"]
                )
            axes[1, place].plot(
                curve.alpha[best], curve.test[best], color=own["color"], **marks["test optimum (no result)"]
            )
        axes[0, place].set_title(f"H = {horizon}")
        axes[1, place].set_xlabel(f"fusion weight {ALPHA}")
    for name, mark in marks.items():
        axes[1, 0].plot([], [], color=GREY, linestyle="none", label=name, **mark)
    for row, (split, word) in zip(axes, (("val", "validation"), ("test", "test")), strict=True):
        row[0].set_ylabel(f"{word} MSE against\nthe backbone, %")
        row[0].set_ylim(*_limits([getattr(curve, split) for _, curves in picture.panels for curve in curves]))
        for axis in row:
            axis.axhline(0, color=GREY, linewidth=0.6, linestyle=":")
    legend_below(figure, axes.ravel().tolist())
    return figure


def _limits(curves: list[NDArray[np.float64]]) -> tuple[float, float]:
    """Of the vertical axis: all gains, and losses up to three times the largest gain; the rest runs out."""
    low = min(float(curve.min()) for curve in curves)
    high = max(float(curve.max()) for curve in curves)
    top = min(high, max(-3 * low, 1.0))
    margin = 0.08 * (top - low)
    return low - margin, top + margin

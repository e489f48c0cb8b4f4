"""Sample forecasts with their intervals, a method per row and a test window per column."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.bench.records import Details
from tsbench.metrics.streaming import point_forecast
from tsbench.report.figures.canvas import GREY, PAGE, legend_below, sheet
from tsbench.report.figures.settings import Panel, Results, Study, studies
from tsbench.report.labels import is_baseline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS, _MOST_WINDOWS = 5, 3
_SAME_LEVEL = 1e-6


@dataclass(frozen=True, eq=False)
class Fan:
    """Forecasts of one method.

    Attributes:
        label: The method.
        levels: Q quantile levels; empty for point forecasts.
        forecast: [W, max(Q, 1), H] in standardised units.
        point: [W, H], the median or the only forecast.
    """

    label: str
    levels: tuple[float, ...]
    forecast: NDArray[np.float32]
    point: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Forecasts:
    """What one picture shows.

    Attributes:
        name: File name without ending.
        title: Data set, horizon, backbone, channel.
        note: Small print.
        times: When each of the W windows begins.
        context: [W, K] steps before the target.
        target: [W, H] what came.
        fans: The methods.
    """

    name: str
    title: str
    note: str
    times: tuple[str, ...]
    context: NDArray[np.float32]
    target: NDArray[np.float32]
    fans: tuple[Fan, ...]


def prepare_forecasts(results: Results) -> list[Forecasts]:
    """A picture per data set, horizon and backbone that has sample forecasts.

    Three of the sample windows are shown, and of their channels the last.
    """
    pictures = (
        _picture(results, alone, panel)
        for study in studies(results.records)
        for panel in study.panels
        for alone in [replace(study, panels=(panel,))]
    )
    return [picture for picture in pictures if picture is not None]


def _picture(results: Results, study: Study, panel: Panel) -> Forecasts | None:
    rows = [row for row in panel.rows if not is_baseline(row.spec)]
    found = [(row, details) for row in rows if (details := results.details(row)) is not None]
    if not found:
        return None
    first = found[0][1].samples
    windows = len(first.start)
    shown = np.linspace(0, windows - 1, min(windows, _MOST_WINDOWS)).astype(np.int64)
    same = [
        (row, details)
        for row, details in found
        if details.samples.channels == first.channels and np.array_equal(details.samples.start, first.start)
    ]
    drawn = same[:_MOST_ROWS]
    left_out = len(found) - len(drawn)
    sentences = [
        f"{len(shown)} windows, evenly spaced",
        study.seeds(row for row, _ in drawn),
        *([f"Methods left out: {left_out} (--select chooses)"] if left_out else []),
    ]
    return Forecasts(
        name=study.name("forecasts", panel.horizon),
        title=f"{study.title}, H = {panel.horizon}: channel {first.channels[-1]}",
        note=study.note(*sentences),
        times=tuple(str(time).replace("T", " ")[:16] for time in first.time[shown]),
        context=first.context[shown, -1],
        target=first.target[shown, -1],
        fans=tuple(_fan(study.label(row), details, shown) for row, details in drawn),
    )


def _fan(label: str, details: Details, shown: NDArray[np.int64]) -> Fan:
    levels, forecast = tuple(details.levels.tolist()), details.samples.forecast[shown, -1]
    return Fan(label, levels, forecast, point_forecast(torch.from_numpy(forecast), levels).numpy())


def intervals(levels: tuple[float, ...]) -> list[tuple[int, int, str]]:
    """The widest central interval and one about half as likely: places of their levels, and a name."""
    found = []
    for low in dict.fromkeys((0, len(levels) // 4)):
        high = len(levels) - 1 - low
        if low < high and abs(levels[low] + levels[high] - 1) < _SAME_LEVEL:
            found.append((low, high, f"{100 * (levels[high] - levels[low]):.0f} % interval"))
    return found


def draw_forecasts(picture: Forecasts) -> "Figure":
    """Context, what came, the median and its intervals."""
    rows, windows = len(picture.fans), len(picture.times)
    figure = sheet(PAGE, 0.7 + 1.05 * rows, picture.title, picture.note)
    axes = figure.subplots(rows, windows, sharex=True, sharey="col", squeeze=False)
    before = np.arange(-picture.context.shape[1], 0) + 1
    after = np.arange(picture.target.shape[1]) + 1
    for row, fan in zip(axes, picture.fans, strict=True):
        for place, panel in enumerate(row):
            for shade, (low, high, name) in enumerate(intervals(fan.levels)):
                panel.fill_between(
                    after,
                    fan.forecast[place, low],
                    fan.forecast[place, high],
                    color="#0072B2",
                    alpha=0.2 + 0.2 * shade,
                    linewidth=0,
                    label=name,
                )
            panel.plot(before, picture.context[place], color=GREY, linewidth=0.8, label="context")
            panel.plot(after, picture.target[place], color="black", linewidth=0.8, label="target")
            panel.plot(after, fan.point[place], color="#0072B2", linewidth=1.2, label="median")
            panel.axvline(0.5, color=GREY, linewidth=0.5, linestyle=":")
        row[0].set_ylabel(fan.label.replace(", ", ",\n"))
    for panel, time in zip(axes[0], picture.times, strict=True):
        panel.set_title(f"from {time}")
    for panel in axes[-1]:
        panel.set_xlabel("step")
    figure.supylabel("standardised value", fontsize=7)
    legend_below(figure, [axes[0, 0]])
    return figure

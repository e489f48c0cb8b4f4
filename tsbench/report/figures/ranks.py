"""Critical-difference diagram: mean ranks of methods, and which of them the data cannot tell apart."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tsbench.bench.store import ResultsStore
from tsbench.config import digest
from tsbench.metrics.ranks import CriticalDifference
from tsbench.report.comparisons import suites
from tsbench.report.figures.canvas import PAGE, sheet
from tsbench.report.figures.settings import Results
from tsbench.report.standing import critical_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Ranks:
    """What the diagram shows.

    Attributes:
        name: File name without ending.
        title: Score and setting.
        note: Small print.
        ranking: Average ranks, the best first, and which are not told apart.
    """

    name: str
    title: str
    note: str
    ranking: CriticalDifference


def prepare_ranks(results: Results) -> list[Ranks]:
    """A picture per suite with three methods or more on two data sets or more: average ranks by MSE.

    Raises:
        TsbenchError: A file is damaged.
    """
    found = []
    for suite in suites(results.records, ResultsStore(results.root), "mse"):
        ranking = critical_difference(suite)
        if ranking is not None and len(ranking.names) > 2:
            name = f"ranks-mse-{digest([suite.label])[:6]}"
            note = (
                f"{suite.label}. {ranking.data_sets} data sets, each by the geometric mean over horizons. "
                f"Bars: not told apart at 5 % (Nemenyi). Friedman p = {ranking.p:.2g}."
            )
            found.append(Ranks(name, "Average ranks by MSE", note, ranking))
    return found


def draw_ranks(picture: Ranks) -> "Figure":
    """The best method at the left; half of the names on either side of the axis, groups as bars below it.

    Source:
        Demšar 2006, Journal of Machine Learning Research 7, section 3.2.2 and Figure 1.
    """
    ranking = picture.ranking
    count = len(ranking.names)
    ranks = dict(zip(ranking.names, ranking.ranks, strict=True))
    bars = [sorted(ranks[name] for name in group) for group in ranking.groups]
    half = (count + 1) // 2
    depth = 1 + len(bars) + half
    figure = sheet(PAGE, 0.5 + 0.16 * depth, picture.title, picture.note)
    axes = figure.subplots()
    for side in ("left", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, count + 1))
    axes.set_yticks([])
    margin = 0.55 * (count - 1) + 0.3  # room for the names
    axes.set_xlim(1 - margin, count + margin)
    axes.spines["top"].set_bounds(1, count)
    axes.set_ylim(depth + 0.4, -1.6)
    start, width = 1 - margin, ranking.difference  # left of the axis, where no method is
    axes.plot([start, start + width], [-1.1, -1.1], color="black", linewidth=1.5)
    axes.text(start, -0.4, f"critical difference {width:.2f}", va="center", fontsize=6.5)
    for level, (low, *_, high) in enumerate(bars, start=1):
        axes.plot([low - 0.04, high + 0.04], [0.75 * level] * 2, color="#0072B2", linewidth=2.5)
    for number, (name, rank) in enumerate(ranks.items()):
        left = number < half
        y = 1 + len(bars) + (number if left else count - 1 - number)
        end = 0.9 if left else count + 0.1
        axes.plot([rank, rank, end], [-1.6, y, y], color="black", linewidth=0.7)
        axes.text(
            end,
            y,
            f"{name} {rank:.2f} " if left else f" {rank:.2f} {name}",
            ha="right" if left else "left",
            va="center",
            fontsize=6.5,
        )
    return figure

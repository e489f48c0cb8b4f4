"""Critical-difference diagram: mean ranks of methods, and which of them the data cannot tell apart."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tsbench.report.figures.canvas import PAGE, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Ranks:
    """What the diagram shows.

    Attributes:
        name: File name without ending.
        title: Score and setting.
        note: Small print.
        names: Methods.
        ranks: Mean rank of each; 1 is best.
        critical_difference: Ranks closer than this do not differ significantly.
        groups: Places in `names` of methods that do not differ, a bar each.
    """

    name: str
    title: str
    note: str
    names: tuple[str, ...]
    ranks: tuple[float, ...]
    critical_difference: float
    groups: tuple[tuple[int, ...], ...]


def draw_ranks(picture: Ranks) -> "Figure":
    """The best method at the left; half of the names on either side of the axis, groups as bars below it.

    Source:
        Demšar 2006, Journal of Machine Learning Research 7, section 3.2.2 and Figure 1.
    """
    count = len(picture.names)
    order = sorted(range(count), key=lambda place: picture.ranks[place])
    bars = [sorted(picture.ranks[place] for place in group) for group in picture.groups if len(group) > 1]
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
    start, width = 1 - margin, picture.critical_difference  # left of the axis, where no method is
    axes.plot([start, start + width], [-1.1, -1.1], color="black", linewidth=1.5)
    axes.text(start, -0.4, f"critical difference {width:.2f}", va="center", fontsize=6.5)
    for level, (low, *_, high) in enumerate(bars, start=1):
        axes.plot([low - 0.04, high + 0.04], [0.75 * level] * 2, color="#0072B2", linewidth=2.5)
    for number, place in enumerate(order):
        left = number < half
        y = 1 + len(bars) + (number if left else count - 1 - number)
        rank, end = picture.ranks[place], 0.9 if left else count + 0.1
        axes.plot([rank, rank, end], [-1.6, y, y], color="black", linewidth=0.7)
        axes.text(
            end,
            y,
            f"{picture.names[place]} {rank:.2f} " if left else f" {rank:.2f} {picture.names[place]}",
            ha="right" if left else "left",
            va="center",
            fontsize=6.5,
        )
    return figure

"""What all figures share: size, colours, the line of small print, and files that repeat byte by byte."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from tsbench.errors import TsbenchError
from tsbench.fsio import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.8
"""Widths in inches of one column and of a page with two."""

GREY = "#767676"
_USUAL = {
    "Origin": "#000000",
    "TS-Memory": "#0072B2",
    "No-retrieval control": "#D55E00",
    "RAFT": "#009E73",
    "TS-RAG": "#CC79A7",
    "LoRA": "#E69F00",
    "Seasonal naive": GREY,
    "Repeat last": "#A8A8A8",
}
COLOURS = ("#56B4E9", "#8C564B", *_USUAL.values())
"""Of all lines; those that no method has for its own come first."""
DASHES = ("-", "--", ":", "-.")
_SETTINGS: Any = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # editable text
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
}
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
_DPI = 200
_TITLE_LINE, _NOTE_LINE = 0.16, 0.115  # inches
_TITLE_LETTERS, _NOTE_LETTERS, _LEGEND_LETTERS = 15, 22, 19  # per inch


def require_matplotlib() -> None:
    """Find out before the work that no figure can be drawn.

    Raises:
        TsbenchError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise TsbenchError("figures need the package matplotlib; pip install 'tsbench[figures]'") from error


@contextmanager
def style() -> Iterator[None]:
    """Draw and save inside: the settings of all figures, whatever the user's own are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def sheet(width: float, height: float, title: str, note: str) -> "Figure":
    """An empty figure, its title and small print above it.

    Args:
        width: Inches.
        height: Inches below the small print.
        title: What it shows.
        note: The small print; long ones are folded.
    """
    from matplotlib.figure import Figure

    title, note = (text.replace("$", r"\$") for text in (title, note))  # names of data, not formulas
    heading, lines = wrap(title, int(_TITLE_LETTERS * width)), wrap(note, int(_NOTE_LETTERS * width))
    head = 0.05 + _TITLE_LINE * len(heading)
    total = height + head + _NOTE_LINE * len(lines)
    figure = Figure(figsize=(width, total))
    figure.set_layout_engine("constrained", rect=(0, 0, 1, height / total))
    left = 0.06 / width
    figure.text(left, 1 - 0.05 / total, "\n".join(heading), fontsize=8, va="top")
    figure.text(left, 1 - head / total, "\n".join(lines), color=GREY, fontsize=6, va="top", linespacing=1.15)
    return figure


def save(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as PNG and as PDF; the same figure gives the same bytes.

    Args:
        figure: What to write.
        path: Without an ending.

    Returns:
        Both files.
    """
    written = []
    for ending, about in _METADATA.items():
        written.append(path.with_name(f"{path.name}.{ending}"))
        with atomic_write(written[-1]) as file:
            figure.savefig(file, format=ending, dpi=_DPI, metadata=about)
    return written


def line_styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each label: a method's own colour, and dashes that tell its variants apart.

    No two labels have both in common, unless there are more of them than pairs of `COLOURS` and `DASHES`. A
    method with more variants than dashes goes on in another colour.
    """
    methods = {label: label.split(",")[0].split(" (")[0] for label in labels}
    nth: dict[str, int] = {}  # the first of every method chooses before any second
    for label, method in methods.items():
        nth[label] = sum(methods[earlier] == method for earlier in nth)
    colours = dict(_USUAL)
    free = {colour: list(DASHES) for colour in COLOURS}
    styles: dict[str, dict[str, Any]] = {}
    for label in sorted(methods, key=lambda label: (nth[label], methods[label] not in _USUAL)):
        own = colours.get(methods[label])
        colour = own if own and free[own] else max(COLOURS, key=lambda each: len(free[each]))
        colours.setdefault(methods[label], colour)
        free[colour] = free[colour] or list(DASHES)  # all pairs are taken
        styles[label] = {"color": colour, "linestyle": free[colour].pop(0)}
    return styles


def legend_below(figure: "Figure", axes: "Sequence[Axes]") -> None:
    """One legend for all axes, below them; a label that several axes have is shown once."""
    found: dict[str, Any] = {}
    for each in axes:
        handles, labels = each.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        letters = int(figure.get_figwidth() * _LEGEND_LETTERS)
        columns = max(1, min(len(found), letters // (max(map(len, found)) + 8)))
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)

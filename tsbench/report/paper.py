"""The tables of the papers with our figures: best marked, changes against Origin, what is missing and why."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import count, product
from string import ascii_lowercase
from typing import Any

import numpy as np

from tsbench.bench.latency_records import Measurement
from tsbench.bench.records import Failure, Record
from tsbench.errors import TsbenchError
from tsbench.metrics.overlap import percent_change
from tsbench.registry import find
from tsbench.report.cells import Cell, Table
from tsbench.report.fill import NOT_RUN, Figure, Filling, fill_scores, fill_timings
from tsbench.report.labels import LEAK, MISSING, spread
from tsbench.report.layout import (
    AVERAGE,
    DIMENSION_NAMES,
    Dimension,
    Layout,
    Point,
    heading,
    layout_suite,
    place_of,
    print_order,
    value_of,
)

_SCORES = ("mse", "mae", "crps", "smape")
_CHANGED = (*_SCORES, "forward_ms", "total_ms", "forward_s", "total_s")
_PUBLISHED = "Published: as the authors print it, on their windows and settings; never marked."
_Keys = tuple[str, ...]
_Problem = tuple[str, str, str]


def paper_tables(
    layouts: Sequence[Layout],
    *,
    records: Sequence[Record] = (),
    failures: Sequence[Failure] = (),
    measurements: Iterable[Measurement] = (),
    backbones: Sequence[str] = (),
    with_published: bool = False,
) -> list[Table]:
    """Published tables in the papers' arrangement, filled with what was measured here.

    Args:
        layouts: Which tables.
        records: What fills tables of scores; see `fill_scores` for which of several.
        failures: Cells that ended in an error: they are missing for that reason.
        measurements: What fills tables of timings.
        backbones: Registered names or aliases of those that take the place of the papers'; none keeps those.
        with_published: Put what the paper prints below each row, and by how many percent ours differs.

    Raises:
        TsbenchError: A backbone is unknown, a table has no place for several, or no table has any figure.
    """
    named = tuple(dict.fromkeys(find("backbone", backbone).name for backbone in backbones))
    for layout in layouts:
        if len(named) > 1 and "backbone" not in (*layout.rows, *layout.columns):
            raise TsbenchError(f"{layout.name} has no place for several backbones; give --backbone one")
    timed = list(measurements)
    tables = []
    empty = True
    for layout in layouts:
        suite = layout_suite(layout, named)
        if suite is None:
            filling = fill_timings(layout, named, timed)
        else:
            filling = fill_scores(layout, suite, records, failures)
        empty &= all(figure.missing for figure in _shown(layout, filling).values())
        title = f"{suite.title if suite else layout.title}" + (
            f" · on {' and '.join(named)}" if named else ""
        )
        tables.append(_table(layout, title, filling, with_published))
    if empty and not with_published:
        names, first = ", ".join(layout.name for layout in layouts), layouts[0]
        command = "latency" if first.timed else f"run --suite {first.name}"
        raise TsbenchError(
            f"no result fills {names}; run `tsbench {command}`, choose with --backbone one that was run, or "
            "see the paper's figures with --with-published"
        )
    return tables


def _shown(layout: Layout, filling: Filling) -> dict[Point, Figure]:
    """The figures that the table prints: a summary has averages alone."""
    return {point: figure for point, figure in filling.figures.items() if point[0].horizon in layout.horizons}


@dataclass(frozen=True)
class _Page:
    """A layout with its figures in their places.

    Attributes:
        layout: The table.
        figures: All of them, averages too.
        rows: Values along `layout.rows`, in print order.
        columns: Values along `layout.columns`, likewise.
        grid: What stands in a row and column.
        usual: Setting of most figures of a data set, horizon and metric, of timings with the conditions of
            the whole table: what has it compares.
        origins: Figures of Origin, by backbone and what `usual` is by.
        ranked: 1 for the best, 2 for the second best.
        letters: Of the notes that cells refer to, by what the note says, in reading order.
    """

    layout: Layout
    figures: Mapping[Point, Figure]
    rows: tuple[_Keys, ...]
    columns: tuple[_Keys, ...]
    grid: Mapping[tuple[_Keys, _Keys], Point]
    usual: Mapping[_Problem, tuple[str, ...]]
    origins: Mapping[tuple[str, ...], Figure]
    ranked: Mapping[Point, int]
    letters: Mapping[str, str]

    def cell(self, point: Point | None) -> Cell:
        """Figure, marks and, where the paper has it there, the change against Origin."""
        if point is None:
            return Cell("")
        figure = self.figures[point]
        marks = [self.letters[note] for note in [self.apart(point)] if note in self.letters]
        if figure.missing:
            return Cell(MISSING, marks="".join(marks))
        text = _text(list(figure.values.values()), point[1], self.layout.decimals[point[1]])
        change = self.change(point) if self.layout.change == "cell" else None
        return Cell(
            text if change is None else f"{text} ({change:+.1f}%)",
            best=self.ranked.get(point) == 1,
            second=self.ranked.get(point) == 2,
            marks=", ".join([*marks, *([LEAK] if figure.leak else [])]),
        )

    def apart(self, point: Point) -> str:
        """Why a figure is missing, or what of its setting is unlike that of most; empty for neither."""
        figure = self.figures[point]
        usual = self.usual.get(_problem(point), figure.setting)
        if figure.missing or figure.setting == usual:
            return figure.missing
        more = [part for part in figure.setting if part not in usual]
        unlike = more or [f"without {part}" for part in usual if part not in figure.setting]
        return f"{', '.join(unlike)}; not compared with the rest"

    def change(self, point: Point) -> float | None:
        """Percent against Origin on the same backbone; None for Origin, or where they do not compare."""
        place, metric = point
        figure = self.figures[point]
        origin = self.origins.get((place.backbone, *_problem(point)))
        if place.method == "origin" or metric not in _CHANGED or figure.missing or origin is None:
            return None
        if origin.setting != figure.setting:
            return None
        percent = percent_change(figure.mean, origin.mean)
        return percent if np.isfinite(percent) else None

    def missing_notes(self) -> list[str]:
        """Why figures are missing or stand apart."""
        plain = any(self.figures[point].missing == NOT_RUN for point in self.grid.values())
        lettered = [f"{letter}: {text}." for text, letter in self.letters.items()]
        return [*([f"{MISSING}: {NOT_RUN}."] if plain else []), *lettered]


def _table(layout: Layout, title: str, filling: Filling, asked: bool) -> Table:
    page = _page(layout, filling)
    printed = {(place_of(each), each.metric): each.value for each in layout.figures} if asked else {}
    beside = not printed.keys().isdisjoint(page.grid.values())
    published = _PUBLISHED if beside else "Published: nothing on this backbone."
    left = (*(DIMENSION_NAMES[name] for name in layout.rows), *(("",) if beside else ()))
    levels = [
        tuple(heading(dimension, column[level]) for column in page.columns)
        for level, dimension in enumerate(layout.columns)
    ]
    over = tuple(("",) * len(left) + level for level in levels[:-1])
    return Table(
        title=title,
        columns=(*left, *levels[-1]),
        rows=tuple(row for keys in page.rows for row in _rows(page, keys, printed if beside else {})),
        notes=(*_notes(page, filling), *([published] if asked else []), *page.missing_notes()),
        data=tuple(_data(page, printed if beside else {}, point) for point in page.grid.values()),
        over=over,
        grouped=len(left) - 1,
    )


def _rows(page: _Page, keys: _Keys, printed: Mapping[Point, Decimal]) -> Iterator[tuple[Cell, ...]]:
    """Our figures, what is printed if any is, and below averages the change against Origin."""
    labels = list(map(heading, page.layout.rows, keys))
    points = [page.grid.get((keys, column)) for column in page.columns]
    ours = ["ours"] if printed else []
    yield *map(Cell, labels + ours), *(page.cell(point) for point in points)
    if any(point in printed for point in points):
        theirs = [_as_printed(printed, point) if point and point in printed else "" for point in points]
        yield tuple(map(Cell, [*labels, "published", *theirs]))
        deviations = [
            _deviates(page.figures[point], printed.get(point)) if point else None for point in points
        ]
        if any(percent is not None for percent in deviations):
            texts = ["" if percent is None else f"{percent:+.1f}%" for percent in deviations]
            yield tuple(map(Cell, [*labels, "differs by", *texts]))
    if page.layout.change == "row" and AVERAGE in keys:
        changes = [page.change(point) if point else None for point in points]
        if any(percent is not None for percent in changes):
            texts = ["" if percent is None else f"{percent:+.2f}%" for percent in changes]
            below = ["Δ" if label == heading("horizon", AVERAGE) else label for label in labels]
            yield tuple(map(Cell, below + ours + texts))


def _page(layout: Layout, filling: Filling) -> _Page:
    figures = _shown(layout, filling)

    def keys(dimensions: Sequence[Dimension], point: Point) -> _Keys:
        return tuple(value_of(dimension, point) for dimension in dimensions)

    grid = {(keys(layout.rows, point), keys(layout.columns, point)): point for point in figures}
    usual: dict[_Problem, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for point in grid.values():
        if figures[point].setting and not figures[point].leak:
            usual[_problem(point)][figures[point].setting] += 1
    page = _Page(
        layout=layout,
        figures=figures,
        rows=print_order(layout, layout.rows, (row for row, _ in grid)),
        columns=print_order(layout, layout.columns, (column for _, column in grid)),
        grid=grid,
        usual={problem: _usual(found, filling.conditions) for problem, found in usual.items()},
        origins={
            (place.backbone, *_problem((place, metric))): figure
            for (place, metric), figure in figures.items()
            if place.method == "origin"
        },
        ranked={},
        letters={},
    )
    placed = (grid.get((row, column)) for row in page.rows for column in page.columns)
    texts = dict.fromkeys(page.apart(point) for point in placed if point)
    lettered = (text for text in texts if text not in ("", NOT_RUN))
    return replace(page, ranked=_ranked(page), letters=dict(zip(lettered, _letters(), strict=False)))


def _usual(found: Counter[tuple[str, ...]], conditions: tuple[str, ...]) -> tuple[str, ...]:
    """The setting of most figures; its end, where the table has conditions, is those."""
    setting = found.most_common(1)[0][0]
    return (*setting[:2], *(conditions or setting[2:]))


def _letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    return ("".join(letters) for size in count(1) for letters in product(ascii_lowercase, repeat=size))


def _problem(point: Point) -> _Problem:
    """What is forecast, and what is measured of it."""
    place, metric = point
    return place.dataset, place.horizon, metric


def _ranked(page: _Page) -> dict[Point, int]:
    """The best and the second best of each data set, horizon and metric, as printed, ties included."""
    contenders: dict[_Problem, dict[Point, float]] = defaultdict(dict)
    for point in page.grid.values():
        figure = page.figures[point]
        if figure.missing or figure.leak or point[1] not in _SCORES:
            continue
        if figure.setting == page.usual.get(_problem(point)):
            contenders[_problem(point)][point] = float(f"{figure.mean:.{page.layout.decimals[point[1]]}f}")
    ranked: dict[Point, int] = {}
    for scores in contenders.values():
        several = len({page.figures[point].sources for point in scores})
        places = {score: place for place, score in enumerate(sorted(set(scores.values())), start=1)}
        last = min(several - 1, 2)  # Origin may be printed twice; and of two there is no second best
        ranked |= {point: places[score] for point, score in scores.items() if places[score] <= last}
    return ranked


def _text(values: Sequence[float], metric: str, digits: int) -> str:
    if metric == "retrieval_fraction":
        return f"{spread([100 * value for value in values], f'.{digits - 2}f')}%"
    return spread(values, f".{digits}f")


def _as_printed(printed: Mapping[Point, Decimal], point: Point) -> str:
    place, metric = point
    if metric == "retrieval_fraction":
        return f"{100 * printed[point]:.1f}%"
    deviation = printed.get((place, f"{metric}_std"))
    return f"{printed[point]}" + (f" ± {deviation}" if deviation is not None else "")


def _deviates(figure: Figure, printed: Decimal | None) -> float | None:
    """Percent by which ours differs from what is printed; None where one is missing, or zero is printed."""
    return None if figure.missing or not printed else 100 * (figure.mean / float(printed) - 1)


def _notes(page: _Page, filling: Filling) -> list[str]:
    shown = [page.figures[point] for point in page.grid.values() if not page.figures[point].missing]
    if not shown:
        return []
    found = [f"Measured on {windows}." for windows in [_windows(page)] if windows]
    found += [f"Run with {conditions}." for conditions in [_conditions(page)] if conditions]
    found += filling.notes
    if page.ranked:
        found.append(
            "Marked are the best and the second best of a data set and horizon, as printed, among figures of "
            "one setting (windows, profile, device)."
        )
    if page.layout.change != "none":
        where = "Δ" if page.layout.change == "row" else "In parentheses"
        found.append(f"{where}: change against Origin on the same backbone; negative is better.")
    if AVERAGE in page.layout.horizons:
        found.append(
            "Averages are over the horizons 96, 192, 336 and 720, and only where all four are there."
        )
    seeds = {len(figure.values) for figure in shown}
    if seeds != {1}:
        counts = " to ".join(map(str, sorted({min(seeds), max(seeds)})))
        found.append(f"±: sample standard deviation over seeds, {counts} per figure.")
    return found


def _windows(page: _Page) -> str:
    """What was scored of each data set at each horizon, in most of its figures."""
    windows: dict[str, dict[str, str]] = defaultdict(dict)
    for (dataset, horizon, _), setting in page.usual.items():
        windows[dataset][horizon] = setting[0]
    parts = []
    for (dataset,) in print_order(page.layout, ("dataset",), ((name,) for name in windows)):
        found = windows[dataset]
        horizons = [horizon for horizon in page.layout.horizons if horizon in found]
        alone = [horizon for horizon in horizons if horizon != AVERAGE]  # an average names all of its own
        texts = [f"{found[horizon]} at {horizon}" for horizon in alone] or [found[AVERAGE]]
        parts.append(f"{dataset} {', '.join(texts)}")
    return "; ".join(parts)


def _conditions(page: _Page) -> str:
    """The rest of the setting of most figures; what only some data sets have, with their names."""
    having: dict[str, dict[str, None]] = defaultdict(dict)
    for (dataset, _, _), setting in page.usual.items():
        for part in setting[2:]:
            having[part][dataset] = None
    every = {dataset for dataset, _, _ in page.usual}
    return "; ".join(
        part if len(datasets) == len(every) else f"{part} ({', '.join(datasets)})"
        for part, datasets in having.items()
    )


def _data(page: _Page, printed: Mapping[Point, Decimal], point: Point) -> dict[str, Any]:
    """One figure at full precision, for programs."""
    place, metric = point
    figure = page.figures[point]
    values = list(figure.values.values())
    theirs = printed.get(point)
    return {
        "table": page.layout.name,
        **vars(place),
        "metric": metric,
        "value": figure.mean if values else None,
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "seeds": len(values),
        "change_percent_against_origin": page.change(point),
        "rank": page.ranked.get(point),
        "leak": figure.leak,
        "missing": figure.missing or None,
        "setting": "; ".join(figure.setting) or None,
        "compared": not figure.missing
        and figure.setting == page.usual.get(_problem(point))
        and not figure.leak,
        "sources": " ".join(figure.sources) or None,
        **({"published": None if theirs is None else float(theirs)} if printed else {}),
        **({"deviation_percent": _deviates(figure, theirs)} if printed else {}),
    }

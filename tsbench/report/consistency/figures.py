"""The published figures, indexed for checks: by cell, by horizon, beside the backbone alone."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files

from tsbench.report.published import Published, published

HORIZONS = ("96", "192", "336", "720")
PAPERS = {"f-llm": "F-LLM", "ts-memory": "TS-Memory"}
SUMMARIES = (
    ("f-llm", 1, 8),
    ("ts-memory", 2, 9),
    ("ts-memory", 3, 10),
    ("ts-memory", 4, 11),
    ("ts-memory", 5, 13),
    ("ts-memory", 6, 14),
)
"""Paper, the table of averages, and the table whose Avg rows it repeats."""


def reference_rows(name: str) -> list[dict[str, str]]:
    """Lines of a CSV of printed figures."""
    text = (files("tsbench.report") / "reference" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def table_name(paper: str, table: int) -> str:
    """Such as "TS-Memory, Table 9"."""
    return f"{PAPERS[paper]}, Table {table}"


def label(figure: Published) -> str:
    """What a figure is about within its table."""
    parts = (figure.dataset, figure.horizon, figure.method, figure.backbone, figure.variant, figure.metric)
    return " ".join(part for part in parts if part)


def last_digit(value: Decimal) -> Decimal:
    """One unit of the last printed digit."""
    return Decimal(1).scaleb(int(value.as_tuple().exponent))


@cache
def by_cell() -> dict[tuple[object, ...], dict[str, Published]]:
    """Figures by paper, table, data set, method, backbone, variant and metric, then by horizon."""
    cells: dict[tuple[object, ...], dict[str, Published]] = defaultdict(dict)
    for figure in published():
        fields = vars(figure)
        key = tuple(value for name, value in fields.items() if name not in ("horizon", "value"))
        cells[key][figure.horizon] = figure
    return dict(cells)


@cache
def _by_table() -> dict[tuple[str, int], list[Published]]:
    tables: dict[tuple[str, int], list[Published]] = defaultdict(list)
    for figure in published():
        tables[figure.paper, figure.table].append(figure)
    return dict(tables)


@cache
def _origins() -> dict[tuple[object, ...], dict[str, Published]]:
    found: dict[tuple[object, ...], dict[str, Published]] = defaultdict(dict)
    for figure in published():
        if figure.method == "origin":
            found[_place(figure)][figure.variant] = figure
    return dict(found)


def _place(figure: Published) -> tuple[object, ...]:
    return (figure.paper, figure.table, figure.dataset, figure.horizon, figure.backbone, figure.metric)


def origin_of(figure: Published) -> Published:
    """The backbone alone beside a figure of TS-Memory, in the same half of a table that prints it twice."""
    candidates = _origins()[_place(figure)]
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    donor = figure.variant.partition("plugmem-from=")[2].removesuffix("-base")
    half = f"block={donor}-plugmem" if donor else f"block={figure.method}"
    return candidates[half]


def reduction(figure: Published) -> Decimal:
    """Percent by which a figure is below that of the backbone alone."""
    return 100 * (1 - figure.value / origin_of(figure).value)


def adapted(figures: Iterable[Published]) -> list[Published]:
    """Those that are not the backbone's own."""
    return [figure for figure in figures if figure.method != "origin"]


@dataclass(frozen=True)
class Selection:
    """Which figures of a table a claim or check is about: fields and keys of the variant by value."""

    paper: str
    table: int
    wanted: dict[str, str]

    def figures(self) -> list[Published]:
        """The figures, in print order."""
        return [
            figure
            for figure in _by_table().get((self.paper, self.table), ())
            if all(self._value(figure, name) == value for name, value in self.wanted.items())
        ]

    @staticmethod
    def _value(figure: Published, name: str) -> str:
        if hasattr(figure, name):
            return str(getattr(figure, name))
        variant = dict(part.split("=", 1) for part in figure.variant.split(";") if part)
        return variant.get(name, "")

"""A table ready to be printed."""

from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

_WORDS = (
    *("Method", "Backbone", "Dataset", "Data set", "Windows", "Profile", "Error", "Device"),
    *("Setting", "Score", "Source", "Verdict", ""),
)
_NAMES = ("Method", "Backbone", "Dataset", "Data set", "Setting", "Source", "H", "L")


@dataclass(frozen=True)
class Cell:
    """Text of a table cell, and what sets it apart.

    Attributes:
        text: What it says.
        best: Whether it is the best of those it compares with.
        second: Whether it is the second best of them.
        marks: Letters of the notes that belong to it, such as "a"; raised where the format can.
    """

    text: str
    best: bool = False
    second: bool = False
    marks: str = ""


@dataclass(frozen=True)
class Table:
    """A table ready to be printed, and the figures it was made of.

    Attributes:
        title: What all its rows share.
        columns: Headings.
        rows: Each as long as `columns`.
        notes: Sentences below it.
        data: One row per cell and seed at full precision, for CSV and JSON; empty where another table of the
            report holds the same figures.
        over: Headings above `columns`, the uppermost level first, each as long as they are; equal neighbours
            are one heading.
        grouped: Leading columns that are printed once for each run of equal values.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    data: tuple[dict[str, Any], ...] = ()
    over: tuple[tuple[str, ...], ...] = ()
    grouped: int = 0

    def is_text(self, place: int) -> bool:
        """Whether a column holds words, to be aligned left."""
        return self.columns[place] in _WORDS

    def is_name(self, place: int) -> bool:
        """Whether a column says what its row is about; the first always does."""
        return place < max(1, self.grouped) or self.columns[place] in _NAMES

    def spans(self) -> list[list[tuple[str, int]]]:
        """The headings of each level with the number of columns they are over, those of `columns` last."""
        levels = (*self.over, self.columns)
        found: list[list[tuple[str, int]]] = []
        for depth in range(1, len(levels)):
            runs = groupby(zip(*levels[:depth], strict=True))  # a heading ends where one above it does
            found.append([(heading[-1], len(list(run))) for heading, run in runs])
        return [*found, [(column, 1) for column in self.columns]]

    def repeated(self, place: int) -> int:
        """How many leading labels of a row are those of the row above, of the columns that are grouped."""
        if place == 0:
            return 0
        above, row = self.rows[place - 1], self.rows[place]
        same = takewhile(lambda pair: pair[0].text == pair[1].text, zip(above, row, strict=True))
        return min(self.grouped, len(list(same)))

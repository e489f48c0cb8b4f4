"""Which stored cells a picture may put side by side."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsbench.bench.records import Details, Record
from tsbench.bench.store import ResultsStore, file_name
from tsbench.report.labels import (
    backbone_label,
    is_baseline,
    is_leak,
    is_transfer,
    of_collection,
)
from tsbench.report.tables import Row, comparable_rows

if TYPE_CHECKING:
    from tsbench.bench.diagnoses import Diagnosis


@dataclass(frozen=True, eq=False)
class Results:
    """What figures are made from.

    Attributes:
        root: Folder of the results.
        records: The chosen cells, without details.
        diagnoses: The chosen diagnoses of F-LLM's stability.
    """

    root: Path
    records: tuple[Record, ...]
    diagnoses: "tuple[Diagnosis, ...]" = ()

    def load(self, row: Row) -> Record | None:
        """The row's first seed with its curves and details."""
        return ResultsStore(self.root).load(row.records[0].key)

    def details(self, row: Row) -> Details | None:
        """Details of the row's first seed; None where there are none."""
        record = self.load(row)
        return record.details if record else None


@dataclass(frozen=True)
class Panel:
    """Cells at one horizon whose scores compare."""

    horizon: int
    rows: tuple[Row, ...]

    @property
    def coverage(self) -> float:
        """Share of the test windows that were scored."""
        first = self.rows[0].records[0]
        return first.windows / first.windows_total


@dataclass(frozen=True)
class Study:
    """One backbone on one data set at one lookback: a panel per horizon, ascending.

    Attributes:
        dataset: Name.
        lookback: Context steps.
        profile: How much of the protocol was run.
        backbone: As tables name it.
        panels: Rows of the backbone and, after them, those without one (naive, statistical, supervised).
    """

    dataset: str
    lookback: int
    profile: str
    backbone: str
    panels: tuple[Panel, ...]

    @property
    def plugmem(self) -> str:
        """The one size of PlugMem that all rows have, as in their labels; empty where sizes differ."""
        sizes = {row.spec.options.plugmem for panel in self.panels for row in panel.rows if row.spec.options}
        return f"PlugMem {sizes.pop()}" if len(sizes) == 1 else ""

    def label(self, row: Row) -> str:
        """The row's method, without the size of PlugMem where the small print tells it."""
        found = row.label
        return found.replace(f", {self.plugmem}", "") if self.plugmem else found

    def seeds(self, rows: Iterable[Row]) -> str:
        """Which seed is shown of rows that are shown at their first one."""
        labels: dict[int, list[str]] = defaultdict(list)
        for row in rows:
            labels[row.spec.seed].append(self.label(row))
        if len(labels) == 1:
            return f"Seed {min(labels)}"
        each = (f"{seed} of {', '.join(labels[seed])}" for seed in sorted(labels))
        return f"Seed {'; '.join(each)}"

    @property
    def title(self) -> str:
        """What all panels share."""
        return f"{self.dataset}, L = {self.lookback}, {self.backbone}"

    def name(self, figure: str, *parts: object) -> str:
        """File name of a picture, without ending."""
        profile = [] if self.profile == "standard" else [self.profile]
        found = [figure, self.dataset, f"L{self.lookback}", self.backbone, *profile, *parts]
        return file_name("-".join(map(str, found)))

    def note(self, *sentences: str) -> str:
        """The small print: coverage, profile and what else a reader must know."""
        plugmem = [self.plugmem] if self.plugmem else []
        return ". ".join([coverage_note(self.panels), f"Profile {self.profile}", *plugmem, *sentences]) + "."


def coverage_note(panels: Sequence[Panel]) -> str:
    """How many of the test windows were scored."""
    shares = [100 * panel.coverage for panel in panels]
    low, high = (f"{share:.3g}" for share in (min(shares), max(shares)))
    return f"{low} % of the test windows" if low == high else f"{low} to {high} % of the test windows"


def studies(records: Iterable[Record], *, transfers: bool = False) -> list[Study]:
    """Group cells on long data sets by what may share a picture; rows that leak are left out.

    Where one horizon was run on several sets of windows or devices, the one with the most rows, then the
    most windows is taken.

    Args:
        records: Any cells.
        transfers: Whether to take cells too that learned from other data or for another backbone.
    """
    honest = [
        record
        for record in records
        if not of_collection(record)
        and not is_leak(record.spec)
        and (transfers or not is_transfer(record.spec))
    ]
    fullest: dict[tuple[str, int, str, int], list[Row]] = {}
    for rows in comparable_rows(honest):
        spec = rows[0].spec
        place = (spec.dataset, spec.lookback, spec.profile, spec.horizon)
        fullest[place] = max(fullest.get(place, []), rows, key=_size)
    found: dict[tuple[str, int, str, str], list[Panel]] = defaultdict(list)
    for (dataset, lookback, profile, horizon), rows in sorted(fullest.items()):
        baselines = [row for row in rows if is_baseline(row.spec)]
        by_backbone: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if not is_baseline(row.spec):
                by_backbone[backbone_label(row.spec)].append(row)
        for backbone, own in by_backbone.items():
            found[dataset, lookback, profile, backbone].append(Panel(horizon, (*own, *baselines)))
    return [Study(*place, panels=tuple(panels)) for place, panels in found.items()]


def _size(rows: list[Row]) -> tuple[int, int]:
    return len(rows), rows[0].records[0].windows if rows else 0


def mean_score(row: Row, metric: str) -> float:
    """Mean over seeds; NaN where a seed lacks it."""
    return float(np.mean(row.values(metric)))

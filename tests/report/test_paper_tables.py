"""The papers' tables: read off the page, printed figures come back where the paper prints them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from test_tables import make_record

from tsbench.bench.records import Record
from tsbench.bench.suite import load_suite
from tsbench.config import CellSpec
from tsbench.report.cells import Cell, Table
from tsbench.report.labels import MISSING
from tsbench.report.layout import LAYOUTS, Layout, Place, find_layout, score_places
from tsbench.report.paper import paper_tables
from tsbench.report.published import Published

SUMMARIES = {
    "ts-memory/2": "ts-memory/9",
    "ts-memory/3": "ts-memory/10",
    "ts-memory/5": "ts-memory/13",
    "ts-memory/6": "ts-memory/14",
    "f-llm/1": "f-llm/8",
}
pytestmark = pytest.mark.usefixtures("no_weights_here")
FULL = [name for name, layout in LAYOUTS.items() if name not in SUMMARIES and not layout.timed]


def text_of(figure: Published) -> str:
    return f"{100 * figure.value:.1f}%" if figure.metric == "retrieval_fraction" else str(figure.value)


def in_print_order(layout: Layout) -> list[str]:
    """The numbers of a table as the paper prints them, line by line; a deviation belongs to its mean."""
    texts: list[str] = []
    for figure in layout.figures:
        if figure.metric.endswith("_std"):
            texts[-1] += f" ± {text_of(figure)}"
        else:
            texts.append(text_of(figure))
    return texts


def printed_by_place(layout: Layout) -> dict[Place, dict[str, Decimal]]:
    found: dict[Place, dict[str, Decimal]] = defaultdict(dict)
    for each in layout.figures:
        place = Place(each.dataset, each.horizon, each.method, each.backbone, each.variant)
        found[place][each.metric] = each.value
    return found


def record_of(spec: CellSpec, scores: Mapping[str, float], **fields: Any) -> Record:
    own = {"mse": 9.0, "mae": 9.0, "crps": 9.0} | dict(scores)
    if "smape" in scores:
        own["mase"] = 1.0
    record = make_record(spec, **fields)
    return replace(record, metrics=record.metrics | own)


def printed_store(layout: Layout) -> list[Record]:
    """A record of what the paper prints for every cell of a table; two seeds where it has deviations."""
    records: dict[CellSpec, Record] = {}
    printed = printed_by_place(layout)
    for place, specs in score_places(load_suite(layout.name)).items():
        for spec in specs if isinstance(specs, tuple) else ():
            scores = {metric: float(value) for metric, value in printed[place].items()}
            apart = {metric: scores.pop(f"{metric}_std", 0.0) / 2**0.5 for metric in list(scores)}
            for seed, sign in ((0, -1), (1, 1)) if any(apart.values()) else ((0, 0),):
                values = {metric: value + sign * apart[metric] for metric, value in scores.items()}
                seeded = spec.model_copy(update={"seed": seed})
                records[seeded] = record_of(seeded, values)
    return list(records.values())


def table_of(name: str, records: Iterable[Record] = (), **asked: Any) -> Table:
    [table] = paper_tables([find_layout(name)], records=list(records), **asked)
    return table


def figures_of(table: Table, layout: Layout, source: str | None = None) -> list[Cell]:
    """The cells with figures, line by line; of one source where published rows stand between."""
    labels = len(layout.rows) + (source is not None)
    rows = [row for row in table.rows if "Δ" not in [cell.text for cell in row[: len(layout.rows)]]]
    return [
        cell for row in rows if source in (None, row[labels - 1].text) for cell in row[labels:] if cell.text
    ]


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_figures_stand_where_the_paper_prints_them(name: str) -> None:
    layout = LAYOUTS[name]
    table = table_of(name, with_published=True)
    assert [cell.text for cell in figures_of(table, layout, "published")] == in_print_order(layout)
    assert {cell.text for cell in figures_of(table, layout, "ours")} == {MISSING}


@pytest.mark.parametrize("name", FULL)
def test_records_of_printed_values_come_back_in_their_places(name: str) -> None:
    layout = LAYOUTS[name]
    table = table_of(name, printed_store(layout))
    ours = [cell.text for cell in figures_of(table, layout)]
    expected = in_print_order(layout)
    assert len(ours) == len(expected)
    means = [index for index, text in enumerate(expected) if text != ours[index] and ours[index] != MISSING]
    of_average = [each.horizon == "avg" for each in layout.figures if not each.metric.endswith("_std")]
    digits = 3 if name == "f-llm/2" else None  # of which the paper prints two for M3
    for index in means:
        if digits:
            assert Decimal(ours[index]) == Decimal(expected[index])
        else:
            assert of_average[index]
            assert abs(Decimal(ours[index]) - Decimal(expected[index])) <= Decimal("0.001")
    absent = sum(len(row.methods) for row in load_suite(name).absent)
    assert (MISSING in ours) == (absent > 0)


@pytest.mark.parametrize(("summary", "full"), SUMMARIES.items())
def test_summaries_are_the_averages_of_the_full_table(summary: str, full: str) -> None:
    layout = LAYOUTS[summary]
    ours = figures_of(table_of(summary, printed_store(LAYOUTS[full])), layout)
    pairs = [
        (Decimal(cell.text.partition(" ")[0]), figure.value)
        for cell, figure in zip(ours, layout.figures, strict=True)
        if cell.text != MISSING
    ]
    assert len(pairs) > 80
    off = [(mine, theirs) for mine, theirs in pairs if mine != theirs]
    assert all(abs(mine - theirs) <= Decimal("0.001") for mine, theirs in off)
    assert len(off) < len(pairs) / 10


@pytest.mark.parametrize(
    ("name", "row", "printed"),
    [  # the lines of the papers
        ("ts-memory/9", "Δ", "-5.96% -1.19% -5.00% -1.17% -0.85% -0.53% -6.53% -2.46%"),
        (
            "ts-memory/10",
            "Δ",
            "-2.48% -0.22% -1.10% -1.25% +0.69% +0.80% -4.35% -0.55% -1.97% -5.96% -1.19% -6.82%",
        ),
        ("ts-memory/13", "Δ", "-5.96% -1.19% -5.47% -1.23% -4.79% -1.02% -4.56% -0.95%"),
        (
            "ts-memory/14",
            "Δ",
            "-6.21% -0.57% -1.10% -0.51% -9.08% -2.83% -8.60% -0.72% -7.58% +0.22% -11.50% -3.57%",
        ),
    ],
)
def test_changes_against_origin_are_those_the_paper_prints_below_etth1(
    name: str, row: str, printed: str
) -> None:
    table = table_of(name, printed_store(LAYOUTS[name]))
    changes = next(cells for cells in table.rows if cells[1].text == row)
    ours = [float(cell.text.rstrip("%")) for cell in changes[2:] if cell.text]
    theirs = [float(text.rstrip("%")) for text in printed.split()]
    assert ours == pytest.approx(theirs, abs=0.0301)  # the paper's are of its rounded averages


def test_changes_behind_the_scores_are_those_of_the_paper() -> None:
    table = table_of("ts-memory/3", printed_store(LAYOUTS["ts-memory/10"]))
    line = " ".join(cell.text for cell in table.rows[0])
    changes = re.findall(r"\(([-+][\d.]+%)\)", line)
    printed = "-2.5% -0.2% -1.1% -1.3% +0.7% +0.8% -4.4% -0.6% -2.0% -6.0% -1.2% -6.8%"
    ours, theirs = ([float(each.rstrip("%")) for each in texts] for texts in (changes, printed.split()))
    assert ours == pytest.approx(theirs, abs=0.1001)
    assert " 0.437 0.437 (-2.5%)" in line  # none behind Origin itself

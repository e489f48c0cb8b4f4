"""Figures that should be equal and are not, that should differ and do not, and that break a sequence."""

from collections import defaultdict
from decimal import Decimal
from itertools import combinations, pairwise

from tsbench.bench.audit.findings import Ledger
from tsbench.report.consistency.figures import HORIZONS, PAPERS, by_cell, label, table_name
from tsbench.report.published import Published, published

SAME = "a quantity printed in several tables has one figure"
TWINS = "methods have figures of their own"
SEQUENCE = "errors grow with the horizon"

_JUMP = Decimal("1.05")
"""An error this many times that of the next longer horizon breaks the sequence."""

_SCORES = ("mse", "mae", "crps", "smape")


def check_repeats(ledger: Ledger) -> None:
    """Compare figures of one quantity, and look for figures that cannot well be a method's own."""
    _check_same_quantity(ledger)
    _check_twins(ledger)
    _check_sequences(ledger)


def quantity(figure: Published) -> tuple[str, ...]:
    """What a figure measures, whatever table prints it: method and variant in one spelling."""
    method, variant = figure.method, figure.variant
    if method in ("f-llm-no-feedback", "frozen-llm"):
        method = "frozen-llm"
    own_set = f"train={figure.dataset.lower()};setting=in-domain"
    if variant.startswith("block=") or variant in ("plugmem=base", own_set):
        variant = ""
    return (figure.paper, figure.dataset, figure.horizon, method, figure.backbone, variant, figure.metric)


def _check_same_quantity(ledger: Ledger) -> None:
    prints: dict[tuple[object, ...], list[Published]] = defaultdict(list)
    for figure in published():
        if figure.metric != "retrieval_fraction":  # Table 12 has those of Table 11; checked by themselves
            prints[*quantity(figure), figure.value.as_tuple().exponent].append(figure)
    for figures in prints.values():
        if len({figure.table for figure in figures}) < 2:
            continue
        ledger.look(SAME)
        tables: dict[Decimal, list[str]] = defaultdict(list)
        for figure in figures:
            half = figure.variant.partition("block=")[2]
            tables[figure.value].append(f"{figure.table} ({half})" if half else str(figure.table))
        if len(tables) > 1:
            said = "; ".join(f"{value} in Tables {', '.join(where)}" for value, where in tables.items())
            first = figures[0]
            cell = " ".join(part for part in quantity(first)[1:] if part)
            ledger.find("fault", SAME, f"{PAPERS[first.paper]}, several tables", cell, f"{said}.")


def _check_twins(ledger: Ledger) -> None:
    """Two methods with the same scores at one data set and horizon, in every score that is printed.

    Averages are left out: three digits of a mean coincide now and then.
    """
    rows: dict[tuple[str, int, str, str, str], dict[str, dict[str, Decimal]]]
    rows = defaultdict(lambda: defaultdict(dict))
    for figure in published():
        if figure.metric in _SCORES and figure.horizon != "avg":
            backbone = figure.backbone if figure.paper == "ts-memory" else ""
            place = (figure.paper, figure.table, figure.dataset, figure.horizon, backbone)
            variant = "" if figure.method == "origin" else figure.variant
            rows[place][f"{figure.method} {variant}".strip()][figure.metric] = figure.value
    for (paper, table, *cell), methods in rows.items():
        for (left, ours), (right, theirs) in combinations(methods.items(), 2):
            if len(ours) < 2:
                continue
            ledger.look(TWINS)
            if ours == theirs:
                text = f"{left} and {right} share every figure: {', '.join(map(str, ours.values()))}"
                text += ", as a fusion weight of 0 would give." if "origin" in (left, right) else "."
                ledger.find("note", TWINS, table_name(paper, table), " ".join(filter(None, cell)), text)


def _check_sequences(ledger: Ledger) -> None:
    for by_horizon in by_cell().values():
        first = next(iter(by_horizon.values()))
        if first.metric not in _SCORES or not {*HORIZONS} <= by_horizon.keys():
            continue
        values = [by_horizon[horizon].value for horizon in HORIZONS]
        for place, (value, longer) in enumerate(pairwise(values)):
            ledger.look(SEQUENCE)
            if value > _JUMP * longer:
                said = ", ".join(map(str, values))
                text = f"{said}: at {HORIZONS[place]} steps {value / longer:.2f} times the next."
                cell = label(by_horizon[HORIZONS[place]])
                ledger.find("note", SEQUENCE, table_name(first.paper, first.table), cell, text)

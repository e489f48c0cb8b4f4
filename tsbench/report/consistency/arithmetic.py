"""Averages, summary tables, changes in percent, sums and shares: figures that follow from others."""

from collections import defaultdict
from decimal import ROUND_DOWN, Decimal

from tsbench.bench.audit.findings import Ledger
from tsbench.report.consistency.figures import (
    HORIZONS,
    PAPERS,
    SUMMARIES,
    Selection,
    by_cell,
    label,
    last_digit,
    origin_of,
    reference_rows,
    table_name,
)
from tsbench.report.published import Published

AVERAGES = "Avg is the rounded mean of four horizons"
HALVES = "exact halves are rounded upwards"
DELTAS = "change in percent follows from the Avg rows"
SUMS = "retrieval + forward = total, within one last digit"
SHARES = "retrieval share = retrieval / total"


def check_arithmetic(ledger: Ledger) -> None:
    """Check every figure that the tables' other figures determine."""
    _check_averages(ledger)
    _check_summaries(ledger)
    _check_deltas(ledger)
    _check_costs(ledger)


def _check_averages(ledger: Ledger) -> None:
    cut_off: dict[tuple[str, int, str], list[tuple[bool, bool]]] = defaultdict(list)
    for by_horizon in by_cell().values():
        if by_horizon.keys() != {*HORIZONS, "avg"}:
            continue
        ledger.look(AVERAGES)
        printed = by_horizon["avg"]
        mean = sum((by_horizon[horizon].value for horizon in HORIZONS), Decimal()) / len(HORIZONS)
        unit = last_digit(printed.value)
        rounded = abs(printed.value - mean) <= unit / 2
        cut = printed.value == mean.quantize(unit, rounding=ROUND_DOWN)
        cut_off[printed.paper, printed.table, printed.method].append((rounded, cut))
        if rounded:
            continue
        group = table_name(printed.paper, printed.table)
        text = f"{printed.value} is printed, the mean of the four horizons is {mean.normalize()}"
        text += f"; {_owner(printed)}." if abs(printed.value - mean) > unit else "."
        ledger.find("fault", AVERAGES, group, label(printed), text)
    for (paper, table, method), cells in cut_off.items():
        off = sum(not rounded for rounded, _ in cells)
        if off > 1 and all(cut for _, cut in cells):
            text = f"all {len(cells)} averages are cut off, not rounded, which lowers {off} of them."
            ledger.find("fault", AVERAGES, table_name(paper, table), method, text, 0)


def _owner(printed: Published) -> str:
    """Where else the same row of averages has this figure."""
    wanted = {name: str(getattr(printed, name)) for name in ("method", "backbone", "variant", "metric")}
    row = Selection(printed.paper, printed.table, {**wanted, "horizon": "avg"}).figures()
    same = [other.dataset for other in row if other.value == printed.value and other is not printed]
    return f"it is the figure of {' and '.join(same)}" if same else "it is no other data set's"


def _check_summaries(ledger: Ledger) -> None:
    """Tables of averages repeat the Avg rows of the full tables."""
    halves = []
    for paper, summary, full in SUMMARIES:
        check = f"{PAPERS[paper]}: tables of averages repeat the Avg rows"
        for figure in Selection(paper, summary, {}).figures():
            key = (paper, full, *list(vars(figure).values())[2:3], *list(vars(figure).values())[4:-1])
            whole = by_cell()[key]["avg"]
            ledger.look(check)
            unit, gap = last_digit(figure.value), figure.value - whole.value
            if abs(gap) > unit / 2:
                text = f"{figure.value} is printed, Table {full} has {whole.value}."
                ledger.find("fault", check, table_name(paper, summary), label(figure), text)
            if abs(gap) == unit / 2:
                halves.append(figure.table if gap < 0 else 0)
    downwards = [table for table in halves if table]
    often = max(set(downwards), key=downwards.count)
    text = (
        f"{len(downwards)} of the {len(halves)} averages that end in an exact half are printed downwards, "
        f"{downwards.count(often)} of them in Table {often}."
    )
    ledger.look(HALVES, len(halves))
    ledger.find("note", HALVES, "TS-Memory, several tables", "averages", text, len(downwards))


def _check_deltas(ledger: Ledger) -> None:
    """Changes against the backbone alone, as printed below the full tables and in brackets in the others."""
    printed: dict[tuple[str, ...], Decimal] = {}
    for line in reference_rows("deltas.csv"):
        cell = tuple(line[name] for name in ("dataset", "method", "backbone", "variant", "metric"))
        paper, table, percent = line["paper"], int(line["table"]), Decimal(line["percent"])
        printed[line["table"], *cell] = percent
        full = {summary: full for _, summary, full in SUMMARIES}.get(table)
        if full is None:
            ledger.look(DELTAS)
            figure = by_cell()[paper, table, *cell]["avg"]
            low, high = _change_range(figure)
            if not low - last_digit(percent) / 2 <= percent <= high + last_digit(percent) / 2:
                origin = origin_of(figure).value
                text = (
                    f"{percent} % is printed, {origin} to {figure.value} is "
                    f"{100 * (figure.value / origin - 1):+.2f} %."
                )
                ledger.find("fault", DELTAS, table_name(paper, table), label(figure), text)
    check = "percentages in brackets are the rounded changes"
    for _, summary, full in SUMMARIES:
        for place, percent in printed.items():
            if place[0] != str(summary):
                continue
            ledger.look(check)
            whole = printed[str(full), *place[1:]]
            if abs(whole - percent) > last_digit(percent) / 2:
                text = f"{percent} % is printed, Table {full} has {whole} %."
                group = table_name("ts-memory", summary)
                ledger.find("fault", check, group, " ".join(filter(None, place[1:])), text)


def _change_range(figure: Published) -> tuple[Decimal, Decimal]:
    """Least and largest change in percent that the printed digits of both figures allow."""
    origin = origin_of(figure)
    below, above = (last_digit(value) / 2 for value in (origin.value, figure.value))
    low = (figure.value - above) / (origin.value + below)
    high = (figure.value + above) / (origin.value - below)
    return 100 * (low - 1), 100 * (high - 1)


def _check_costs(ledger: Ledger) -> None:
    """Times add up, and shares are those of the times beside them."""
    for table, unit in ((11, "ms"), (12, "s")):
        group = table_name("ts-memory", table)
        off_share: list[tuple[Published, Decimal]] = []
        off_average: list[tuple[Published, Decimal]] = []
        for share in Selection("ts-memory", table, {"metric": "retrieval_fraction"}).figures():
            retrieval, forward, total = (
                _beside(share, f"{stage}_{unit}") for stage in ("retrieval", "forward", "total")
            )
            ledger.look(SUMS)
            if abs(retrieval + forward - total) > last_digit(total):
                text = f"{retrieval} + {forward} is printed as {total}."
                ledger.find("fault", SUMS, group, label(share), text)
            ledger.look(SHARES)
            half = last_digit(total) / 2
            low, high = (retrieval - half) / (total + half), (retrieval + half) / (total - half)
            slack = Decimal("0.0005")  # shares are percentages with one digit
            if retrieval and not low - slack <= share.value <= high + slack:
                (off_average if share.horizon == "avg" else off_share).append((share, retrieval / total))
        if off_share:
            ledger.find("fault", SHARES, group, *_worst(off_share), len(off_share))
        if off_average:
            cell, text = _worst(off_average)
            text = f"Avg shares are means of the four shares, not shares of the averages: {text}"
            ledger.find("note", SHARES, group, cell, text, len(off_average))
    check = "Table 12 has the retrieval shares of Table 11"
    for share in Selection("ts-memory", 12, {"metric": "retrieval_fraction"}).figures():
        ledger.look(check)
        key = ("ts-memory", 11, share.dataset, share.method, share.backbone, share.variant, share.metric)
        other = by_cell()[key][share.horizon]
        if other.value != share.value:
            group = table_name("ts-memory", 12)
            ledger.find("fault", check, group, label(share), f"{share.value}, Table 11 has {other.value}.")


def _beside(share: Published, metric: str) -> Decimal:
    fields = (share.paper, share.table, share.dataset, share.method, share.backbone, share.variant, metric)
    return by_cell()[fields][share.horizon].value


def _worst(found: list[tuple[Published, Decimal]]) -> tuple[str, str]:
    """The figure farthest from what it should be, and a sentence about all."""
    share, ratio = max(found, key=lambda pair: abs(pair[0].value - pair[1]))
    return label(share), (
        f"{100 * share.value:.1f} % is printed, the times beside it give {100 * ratio:.1f} %"
        + (f"; {len(found)} cells differ, this one most." if len(found) > 1 else ".")
    )

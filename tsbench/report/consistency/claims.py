"""What the papers' text says of their tables, worked out again from the tables.

`reference/claims.csv` holds each claim as the quantity, the figures it is about and the range that is stated:
"5.6 %" is 5.6 to 5.6, "5 to 7 %" is 5 to 7, and "most" is 51 to 100 percent. A stated number holds to half a
unit of its last digit. Claims without a number, such as that a table prints a method, have no range.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from statistics import mean

from tsbench.bench.audit.findings import Ledger
from tsbench.report.consistency.figures import (
    HORIZONS,
    Selection,
    adapted,
    last_digit,
    origin_of,
    reduction,
    reference_rows,
    table_name,
)
from tsbench.report.published import Published, published

CHECK = "the text says what the tables do"


@dataclass(frozen=True)
class Reading:
    """One way to work out what a claim states.

    Attributes:
        basis: How.
        value: What comes out.
        aside: Another quantity than the claimed one, named because it has the claimed value.
    """

    basis: str
    value: Decimal
    aside: bool = False


def check_claims(ledger: Ledger) -> None:
    """Compare every claim with its tables.

    A claim that no reading bears out is a fault; one that some readings bear out and others do not is a note.
    """
    for line in reference_rows("claims.csv"):
        ledger.look(CHECK)
        wanted = dict(part.split("=", 1) for part in line["select"].split())
        selection = Selection(line["paper"], int(line["table"]), wanted)
        where = CHECK, table_name(selection.paper, selection.table), line["select"] or line["quantity"]
        if line["quantity"] in _FACTS:
            holds, said = _FACTS[line["quantity"]](selection)
            if not holds:
                ledger.find("fault", *where, f"Section {line['section']} says otherwise: {said}.")
            continue
        low, high = Decimal(line["low"]), Decimal(line["high"])
        slack = last_digit(low) / 2
        readings = _QUANTITIES[line["quantity"]](selection)
        held = [low - slack <= reading.value <= high + slack for reading in readings if not reading.aside]
        if all(held):
            continue
        shown = "; ".join(f"{reading.basis} {_shown(reading.value)}" for reading in readings)
        stated = str(low) if low == high else f"{low} to {high}"
        text = f"Section {line['section']} states {line['quantity']} {stated}; {shown}."
        ledger.find("note" if any(held) else "fault", *where, text)


def _shown(value: Decimal) -> str:
    return f"{value:.0f}" if value == value.to_integral() else f"{value:.2f}"


def _changes(selection: Selection, sign: int) -> list[Reading]:
    """Mean change in percent, over the Avg rows and over horizons; of one horizon, over its data sets."""
    figures = adapted(selection.figures())
    parts = {
        "mean of the Avg rows": [figure for figure in figures if figure.horizon == "avg"],
        "mean over horizons": [figure for figure in figures if figure.horizon != "avg"],
    }
    readings = [
        Reading(basis, sign * _mean(map(reduction, chosen))) for basis, chosen in parts.items() if chosen
    ]
    if len(readings) > 1:
        readings += [
            Reading(f"at {h}", sign * _mean(reduction(f) for f in figures if f.horizon == h), aside=True)
            for h in HORIZONS
        ]
    return readings


def _mean(values: Iterable[Decimal]) -> Decimal:
    return Decimal(mean(values))


def _reduction(selection: Selection) -> list[Reading]:
    return _changes(selection, 1)


def _reduction_by_horizon(selection: Selection) -> list[Reading]:
    return [replace(reading, aside=False) for reading in _changes(selection, 1)]


def _increase(selection: Selection) -> list[Reading]:
    return _changes(selection, -1)


def _largest_reduction(selection: Selection) -> list[Reading]:
    return [Reading("largest of all", max(map(reduction, adapted(selection.figures()))))]


def _double_digits(selection: Selection) -> list[Reading]:
    changes = [reduction(figure) for figure in adapted(selection.figures())]
    many = sum(change >= 10 for change in changes)
    return [Reading(f"{many} of {len(changes)} reach 10 %, in percent", Decimal(100 * many) / len(changes))]


def _shrinks(selection: Selection) -> tuple[bool, str]:
    figures = adapted(selection.figures())
    means = [-_mean(reduction(figure) for figure in figures if figure.horizon == h) for h in HORIZONS]
    falls = all(later < earlier for earlier, later in pairwise(means))
    return falls, f"means by horizon are {', '.join(f'{percent:.1f}' for percent in means)} %"


def _total_over_origin(selection: Selection) -> list[Reading]:
    ratios = [figure.value / origin_of(figure).value for figure in selection.figures()]
    return [Reading("least of all data sets", min(ratios)), Reading("largest", max(ratios))]


def _next_best(selection: Selection) -> list[Reading]:
    """Mean reduction of the MSE against the best other method of each data set."""
    everyone = Selection(selection.paper, selection.table, {**selection.wanted, "metric": "mse"})
    ours = everyone.figures()
    gains = [1 - figure.value / min(_others(figure)) for figure in ours]
    worse = [figure.dataset for figure, gain in zip(ours, gains, strict=True) if gain < 0]
    averages = Selection(selection.paper, selection.table, {**selection.wanted, "horizon": "avg"}).figures()
    averages = [figure for figure in averages if figure.metric == "mse"]
    alone = [1 - ours.value / _other(ours, "autotimes") for ours in averages]
    worse_text = f" ({' and '.join(worse)} get worse)" if worse else ""
    return [
        Reading(f"at 720 over {len(ours)} data sets{worse_text}, in percent", 100 * _mean(gains)),
        Reading("Avg rows against autotimes alone, in percent", 100 * _mean(alone), aside=True),
    ]


def _other(figure: Published, method: str) -> Decimal:
    """The figure of another method in the same cell."""
    wanted = {name: str(getattr(figure, name)) for name in ("dataset", "horizon", "metric")}
    [other] = Selection(figure.paper, figure.table, {**wanted, "method": method}).figures()
    return other.value


def _others(figure: Published) -> list[Decimal]:
    """Figures of the other methods in the same cell."""
    wanted = {name: str(getattr(figure, name)) for name in ("dataset", "horizon", "metric")}
    same = Selection(figure.paper, figure.table, wanted).figures()
    return [other.value for other in same if other.method != figure.method]


def _share_best(selection: Selection) -> list[Reading]:
    cells = [figure for figure in selection.figures() if figure.horizon != "avg"]
    best = sum(figure.value <= min(_others(figure)) for figure in cells)
    basis = f"best or tied in {best} of {len(cells)} cells, in percent"
    return [Reading(basis, Decimal(100 * best) / len(cells))]


def _share_improved(selection: Selection) -> list[Reading]:
    cells = selection.figures()
    wanted = {**selection.wanted, "method": "frozen-llm"}
    before = Selection(selection.paper, selection.table, wanted).figures()
    better = sum(new.value < old.value for new, old in zip(cells, before, strict=True))
    basis = f"{better} of {len(cells)} cells improve, in percent"
    return [Reading(basis, Decimal(100 * better) / len(cells))]


def _datasets(selection: Selection) -> list[Reading]:
    names = {figure.dataset for figure in selection.figures()}
    return [Reading(f"Table {selection.table} prints", Decimal(len(names)))]


def _prints(selection: Selection) -> tuple[bool, str]:
    """Whether a table prints what the text says it does; if not, which tables do."""
    tables = sorted(
        table
        for table in {figure.table for figure in published()}
        if Selection(selection.paper, table, selection.wanted).figures()
    )
    others = f"Table {', '.join(map(str, tables))} does" if tables else "no table does"
    return selection.table in tables, f"Table {selection.table} prints none of it, {others}"


def _original_units(selection: Selection) -> tuple[bool, str]:
    """Errors of one size on every data set are those of standardised values."""
    values = [figure.value for figure in selection.figures() if figure.horizon == "avg"]
    said = (
        f"averages of {len(values)} data sets in unlike units lie between {min(values)} and {max(values)}, "
        "as those of standardised values do"
    )
    return max(values) > 10 * min(values), said


_QUANTITIES: dict[str, Callable[[Selection], list[Reading]]] = {
    "reduction": _reduction,
    "reduction-at-each-horizon": _reduction_by_horizon,
    "increase": _increase,
    "largest-reduction": _largest_reduction,
    "share-of-double-digit-reductions": _double_digits,
    "total-over-origin": _total_over_origin,
    "mse-reduction-to-next-best": _next_best,
    "share-of-cells-best": _share_best,
    "share-of-cells-improved": _share_improved,
    "number-of-datasets": _datasets,
}
_FACTS: dict[str, Callable[[Selection], tuple[bool, str]]] = {
    "prints": _prints,
    "increase-shrinks-with-horizon": _shrinks,
    "errors-in-original-units": _original_units,
}

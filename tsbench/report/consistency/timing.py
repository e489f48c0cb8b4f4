"""How many queries the printed times imply, and what lookback the printed split sizes do."""

from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal

from tsbench.bench.audit.findings import Ledger
from tsbench.report.consistency.figures import (
    Selection,
    by_cell,
    last_digit,
    reference_rows,
    table_name,
)
from tsbench.report.published import Published

QUERIES = "methods of Table 12 time the queries of Origin"
SIZES = "printed train sizes are windows of the paper's lookback"
_LOOKBACKS = {"f-llm": 672, "ts-memory": 512}
_TRAIN_LOOKBACK = 96
_RULES: dict[str, Callable[[int, int, int], int]] = {
    "(N - H - 512) C": lambda size, horizon, channels: (size - horizon - 512) * channels,
    "(N - H) C - 5120": lambda size, horizon, channels: (size - horizon) * channels - 5120,
    "(N - H) C": lambda size, horizon, channels: (size - horizon) * channels,
}
"""Queries of a printed test size N, which is one more than the rows, with H steps and C channels."""


def check_timing(ledger: Ledger) -> None:
    """Work out how many queries were timed, and which windows were counted."""
    _check_queries(ledger)
    _check_sizes(ledger)


def _check_queries(ledger: Ledger) -> None:
    """Tables 11 and 12 of TS-Memory time the same methods: their ratio is the number of queries."""
    sizes = {
        line["dataset"]: (int(line["test_size"]), int(line["dim"]))
        for line in reference_rows("datasets.csv")
        if line["paper"] == "ts-memory"
    }
    fits: dict[str, list[set[str]]] = defaultdict(list)
    for run in Selection("ts-memory", 12, {"metric": "total_s"}).figures():
        if run.horizon == "avg":
            continue
        query, (size, channels) = _per_query(run), sizes[run.dataset]
        half_run, half_query = last_digit(run.value) / 2, last_digit(query) / 2
        low = 1000 * (run.value - half_run) / (query + half_query)
        high = 1000 * (run.value + half_run) / (query - half_query)
        counts = {name: rule(size, int(run.horizon), channels) for name, rule in _RULES.items()}
        fits[run.method].append({name for name, count in counts.items() if low <= count <= high})
    best = {method: _most_common(cells) for method, cells in fits.items()}
    for method, cells in fits.items():
        ledger.look(QUERIES, len(cells))
        found = {name: sum(name in fitting for fitting in cells) for name in _RULES}
        said = ", ".join(f"{name} in {number}" for name, number in found.items() if number) or "none of ours"
        text = f"seconds per run / ms per query gives these queries: {said} of {len(cells)} cells"
        where = QUERIES, table_name("ts-memory", 12), method
        if best[method] == best["origin"]:
            ledger.find("note", *where, f"{text}; all test windows would be (N - H) C.", 0)
        else:
            text = f"{text}, where Origin has {best['origin']}; {_overheads(method)}."
            ledger.find("fault", *where, text, len(cells))


def _most_common(cells: list[set[str]]) -> str:
    """The rule that fits most cells; empty where it fits fewer than half."""
    counted = {name: sum(name in fitting for fitting in cells) for name in _RULES}
    name = max(counted, key=lambda rule: counted[rule])
    return name if 2 * counted[name] > len(cells) else ""


def _per_query(run: Published) -> Decimal:
    key = ("ts-memory", 11, run.dataset, run.method, run.backbone, run.variant, "total_ms")
    return by_cell()[key][run.horizon].value


def _overheads(method: str) -> str:
    """Where a method's overhead per run differs most from that per query, both as printed."""
    printed: dict[str, dict[str, Decimal]] = defaultdict(dict)
    for line in reference_rows("deltas.csv"):
        if line["method"] == method and line["table"] in ("11", "12") and line["metric"].startswith("total"):
            printed[line["dataset"]][line["table"]] = Decimal(line["percent"])
    dataset = max(printed, key=lambda name: abs(printed[name]["11"] - printed[name]["12"]))
    percents = printed[dataset]
    return f"its overhead on {dataset} is {percents['12']:+} % per run and {percents['11']:+} % per query"


def _check_sizes(ledger: Ledger) -> None:
    """Train windows as printed, against the train rows that the printed test windows imply.

    A test size is the rows plus one. ETT's train rows are three times its test rows; of the others both are
    shares, 0.7 and 0.2, of an unprinted number of rows.
    """
    for paper, lookback in _LOOKBACKS.items():
        fitting = []
        lines = [line for line in reference_rows("datasets.csv") if line["paper"] == paper]
        lines = [line for line in lines if not line["dataset"].startswith("M")]
        for line in lines:
            ledger.look(SIZES)
            test_rows, windows = int(line["test_size"]) - 1, int(line["train_size"])
            if line["dataset"].startswith("ETT"):
                rows = {3 * test_rows}
            else:
                rows = {
                    int(0.7 * n) for n in range(5 * test_rows, 5 * test_rows + 6) if int(0.2 * n) == test_rows
                }
            if windows + _TRAIN_LOOKBACK - 1 in rows:
                fitting.append(line["dataset"])
        example = next(line for line in lines if line["dataset"] == "ETTh1")
        rows_example = 3 * (int(example["test_size"]) - 1)
        text = (
            f"train sizes of {len(fitting)} of {len(lines)} data sets count windows of {_TRAIN_LOOKBACK} "
            f"steps, not of the lookback {lookback}: ETTh1 has {example['train_size']} = {rows_example} - "
            f"{_TRAIN_LOOKBACK} + 1, where a lookback of {lookback} leaves {rows_example - lookback + 1}."
        )
        table = {"f-llm": 7, "ts-memory": 8}[paper]
        ledger.find("note", SIZES, table_name(paper, table), "train sizes", text, len(fitting))
